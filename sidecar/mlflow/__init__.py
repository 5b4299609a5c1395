"""Enforcement inside MLflow's server: what its requests are about, what the policy must know of it, and the application.

    words      path, query and body as one strict reading
    places     ids and addresses: a path below the artifact root, a version's source
    upstream   questions to the guarded server itself
    facts      what the inventory knows of versions: aliases, and where their bytes lie
    mark       which world the server's workers have brought about
    plan       what one request comes to: questions, and what is done with its answer
    meanings   what each row of `sidecar.routes.mlflow` asks
    lists      pages that hold what the caller may see
    guard      the middleware: decides, passes on, learns from what was answered
    app        `mlflow server --app-name pdp`

Source: ENFORCEMENT.md 3.3, 3.5, 5.2.
"""
