"""Services without a name that share a ledger and a budget, each with a file of its own, in every order.

The newest line of any of them holds, and none ends what only another one has. Two machines with one path are one
service. The oracle keeps what each service last said, and knows nothing of the register.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from llm_cost_middleware import Budget, Ledger
from llm_cost_middleware.testing import FakeClock

PATHS = ("search", "ads", "etl")
SHARED = st.dictionaries(st.sampled_from(["global", "team:x", "team:y"]), st.integers(1, 9), max_size=3)
STARTS = st.lists(
    st.tuples(st.sampled_from(["m1", "m2"]), st.sampled_from(PATHS), SHARED, st.integers(1, 9)), max_size=25
)


@settings(max_examples=300, deadline=None)
@given(STARTS)
def test_the_newest_line_holds_and_nobody_ends_another_s(starts):
    clock = FakeClock()
    limits, owner, said = {}, {}, {}
    with Ledger.open("memory://", clock=clock) as ledger:
        for machine, path, shared, own in starts:
            clock.advance(1)
            lines = {**shared, f"service:{path}": own}  # so that a restart is told from another service
            ledger.configure_budgets(
                [Budget(scope, limit) for scope, limit in lines.items()],
                name=None, origin=f"{machine}/{path}", written_at=clock.now(),
            )  # fmt: skip
            before = said.get(path, {})
            for scope, limit in lines.items():
                if before.get(scope) != limit:
                    limits[scope], owner[scope] = limit, path
            said[path] = lines
            for scope in before.keys() - lines.keys():
                if owner.get(scope) != path:
                    continue
                others = [other for other in said if other != path and scope in said[other]]
                if others:
                    owner[scope] = next(other for other in said if other in others)
                    limits[scope] = min(limits[scope], said[owner[scope]][scope])
                else:
                    del limits[scope], owner[scope]
            assert {budget.scope: int(budget.limit) for budget in ledger.budgets()} == limits
