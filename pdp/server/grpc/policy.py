"""PolicyService: a pack comes in whole, is checked whole, and becomes the live policy."""

from typing import Any

from pdp.errors import BadRequestError
from pdp.model.names import printable
from pdp.server.callers import CALLER
from pdp.server.grpc.convert import need
from pdp.service.policy import Policies
from pdp.v1 import policy_pb2, policy_pb2_grpc


class PolicyServicer(policy_pb2_grpc.PolicyServiceServicer):
    """The RPCs of PolicyService, behind the guard."""

    def __init__(self, *, policies: Policies) -> None:
        self._policies = policies

    async def Propose(self, request: policy_pb2.ProposeRequest, _context: Any) -> policy_pb2.ProposeResponse:  # noqa: N802 - gRPC's name
        """Check a pack and keep it."""
        files: dict[str, bytes] = {}
        for file in request.files:
            if file.path in files:
                raise BadRequestError(f"the file `{printable(file.path)}` stands twice")
            files[file.path] = file.content
        proposal = await self._policies.propose(files, message=request.message)
        return policy_pb2.ProposeResponse(
            proposal_id=proposal.id,
            warnings=proposal.warnings,
            rows_added=proposal.rows_added,
            rows_removed=proposal.rows_removed,
            base_seq=proposal.base_seq,
        )

    async def Activate(self, request: policy_pb2.ActivateRequest, _context: Any) -> policy_pb2.ActivateResponse:  # noqa: N802 - gRPC's name
        """Make a proposal live."""
        proposal_id = need(request.proposal_id, "proposal_id")
        world = await self._policies.activate(proposal_id, author=CALLER.get().name)
        return policy_pb2.ActivateResponse(world_seq=world.seq, revision=world.revision)

    async def Get(self, _request: policy_pb2.GetPolicyRequest, _context: Any) -> policy_pb2.GetPolicyResponse:  # noqa: N802 - gRPC's name
        """Show the live policy."""
        world = self._policies.live()
        policy = world.policy
        rows = policy.snapshot.rows if policy else ()
        return policy_pb2.GetPolicyResponse(
            revision=world.revision,
            world_seq=world.seq,
            model=policy.model_text if policy else "",
            vocabulary=policy.vocabulary_text if policy else "",
            rows=[policy_pb2.PolicyRow(id=row.id, section=row.section, fields=row.fields) for row in rows],
        )
