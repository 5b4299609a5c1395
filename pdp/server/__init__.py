"""The PDP as a process: its composition root, its doors, its probes."""
