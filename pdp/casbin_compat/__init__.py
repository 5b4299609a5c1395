"""pycasbin's `Enforcer`, by its call signatures, over the engine of Portcullis: an application switches one import.

    from pdp.casbin_compat import Enforcer

    enforcer = Enforcer("model.conf", "policy.csv")
    enforcer.enforce("alice", "data1", "read")

A model and a policy are given as pycasbin takes them: paths, texts, or an adapter and a model by their shape; pycasbin
itself is not imported. What differs is written in `docs/casbin.md` and raises where it cannot be right: a policy that does
not compile is refused with its findings and changes nothing, `enable_enforce(False)` raises (D-06), a model that allows by
default raises (D-01). Every change makes a new immutable snapshot, which requests take by one reference: readers never wait
and never see half a change (D-46). A change among requests compiles the policy: many rows are best added by `add_policies`.

`add_function`, and requests that hold objects, work here and nowhere else. They mark the enforcer `local`: what such a
policy means depends on this process, so `pack_files` refuses to make a pack of it and it can never be published.
"""

from pdp.casbin_compat._core import EnforceContext, NotOfferedError
from pdp.casbin_compat._enforcer import Enforcer

__all__ = ["EnforceContext", "Enforcer", "NotOfferedError"]
