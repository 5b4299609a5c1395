"""L2: of a batch of any size each question is answered once and in order, or the whole call is refused.

Source: SpiceDB CVE-2024-27101, where a chunk boundary dropped answers.
"""

import asyncio
from pathlib import Path

import grpc
import pytest

from pdp.limits import MAX_BATCH
from pdp.v1 import decision_pb2, decision_pb2_grpc
from tests.support.pdp import BOB, detail, running_pdp

ASSETS = "dataset/open: {environment: dev}\n"
KINDS = (
    decision_pb2.Question(action="dataset.read", resource="dataset/open", supports_all=True),
    decision_pb2.Question(action="dataset.delete", resource="dataset/open"),
    decision_pb2.Question(subject=decision_pb2.Subject(credential="Bearer x"), action="a.b", resource="a/b"),
)
ANSWERS = ("granted", "no_grant", "token_malformed")
SIZES = (0, 1, 99, 100, 101, MAX_BATCH - 1, MAX_BATCH, MAX_BATCH + 1, 65_535, 65_536)


@pytest.mark.holds("L2", "adv_batch_chunking")
def test_each_question_is_answered_once_and_in_order_or_the_call_is_refused(tmp_path: Path) -> None:
    async def work() -> None:
        async with running_pdp(tmp_path, assets=ASSETS) as pdp:
            stub, metadata = decision_pb2_grpc.DecisionServiceStub(pdp.channel()), pdp.metadata(BOB)
            for size in SIZES:
                request = decision_pb2.EvaluateBatchRequest(questions=[KINDS[n % 3] for n in range(size)])
                if size > MAX_BATCH:
                    with pytest.raises(grpc.aio.AioRpcError) as error:
                        await stub.EvaluateBatch(request, metadata=metadata, timeout=30)
                    assert detail(error.value).reason == "bad_request"
                    continue
                response = await stub.EvaluateBatch(request, metadata=metadata, timeout=30)
                assert [item.reason for item in response.decisions] == [ANSWERS[n % 3] for n in range(size)]
                assert len({item.decision_id for item in response.decisions}) == size

    asyncio.run(work())
