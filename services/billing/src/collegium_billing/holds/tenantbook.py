"""What a shard's owner knows of one tenant: its budgets, rates and open tasks, and what it decides from them. Pure.

One rule: a task is let in by all bounds at once or refused by the first, and then nothing was counted.
"""

from __future__ import annotations

import msgspec
from collegium_contracts.holds import HoldCaptured, HoldEnded, HoldPlaced, RateState, WindowState
from collegium_contracts.requests import HoldAnswer, HoldAsk, OpenHold, Rates
from collegium_contracts.state import RateLimits, TenantRecord

from collegium_billing.holds.budgetbook import Budget
from collegium_billing.holds.rates import RateBook, tightest
from collegium_billing.holds.refusals import key_ended, no_money, slow_down
from collegium_billing.holds.windows import Amounts

OF_TENANT = ""
# A task that died may settle for as long as EVENTS has what it is settled from.
LATE_MS = 3 * 86_400_000
# What stands for a key where somebody came with a token.
TOKEN_PREFIX = "jwt-"  # noqa: S105 - no secret


class OpenTask:
    """A task that was let in: its hold (none where no budget covers it), what its ended attempts captured of that, what
    it was counted with, and whether the rates count it as open: not while it waits for people, running no more, nor
    where a former owner had counted it."""

    __slots__ = ("captured", "expires_at_ms", "hold", "is_counted", "key_id", "tokens")

    def __init__(self, key_id: str, tokens: int, expires_at_ms: int, hold: HoldPlaced | None) -> None:
        self.key_id = key_id
        self.tokens = tokens
        self.expires_at_ms = expires_at_ms
        self.hold = hold
        self.captured: dict[int, HoldCaptured] = {}
        self.is_counted = True

    @property
    def left(self) -> int:
        """What is still held."""
        if self.hold is None:
            return 0
        return max(0, self.hold.picos - sum(one.picos for one in self.captured.values()))


class TenantBook:
    """One tenant's bounds and what is counted against them."""

    __slots__ = ("_late", "_rates", "budgets", "over_hold", "record", "tasks")

    def __init__(self, record: TenantRecord, tier_day: int | None) -> None:
        self.record = record
        self.budgets: dict[str, Budget] = {}
        self.tasks: dict[str, OpenTask] = {}
        self.over_hold = 0
        self._rates: dict[str, RateBook] = {}
        # What tasks had captured that ended without settling: should they settle yet, only the rest is captured.
        self._late: dict[str, dict[int, HoldCaptured]] = {}
        self.learn(record, tier_day)

    def learn(self, record: TenantRecord, tier_day: int | None) -> None:
        """Takes a new definition; budgets that are new, or cover something else now, are in :meth:`unopened`."""
        self.record = record
        limits = record.limits or RateLimits()
        if limits.requests_per_day is None:
            limits = RateLimits(
                requests_per_minute=limits.requests_per_minute,
                tokens_per_minute=limits.tokens_per_minute,
                requests_per_day=tier_day,
                tokens_per_window=limits.tokens_per_window,
                token_window_seconds=limits.token_window_seconds,
                concurrency=limits.concurrency,
            )
        wanted = {OF_TENANT: limits} | {self.first(key.id): key.limits for key in record.keys if key.limits is not None}
        for gone in set(self._rates) - set(wanted):
            del self._rates[gone]
        for name, bounds in wanted.items():
            if (book := self._rates.get(name)) is not None:
                book.use(bounds)
            else:
                self._rates[name] = RateBook(bounds)
        definitions = {one.id: one for one in record.budgets}
        for name, budget in list(self.budgets.items()):
            definition = definitions.get(name)
            if definition is None or not budget.is_as(definition):
                del self.budgets[name]
            else:
                budget.record = definition

    def covering(self, project: str, key_id: str) -> list[Budget]:
        """Returns the budgets in which counts what is spent in the name of a project and key."""
        first = self.first(key_id)
        return [one for one in self.budgets.values() if one.covers(project, first)]

    def unopened(self) -> list[str]:
        """Names the budgets of which it is not known yet what was spent."""
        return [one.id for one in self.record.budgets if one.id not in self.budgets]

    def open(self, budget_id: str, spent: Amounts, now_ms: int, carried: int = 0) -> None:
        """Begins to keep a budget, with what was spent before."""
        record = next((one for one in self.record.budgets if one.id == budget_id), None)
        if record is None:
            return
        budget = self.budgets[budget_id] = Budget(self.record.id, record, now_ms, amounts=spent, carried=carried)
        for task in self.tasks.values():
            if task.hold is not None and budget_id in task.hold.budgets:
                budget.held += task.left
        for captured in self.captured():
            if budget.covers(captured.project, self.first(captured.key_id)):
                budget.window.add(captured.at_ms, captured.picos)

    def ask(self, ask: HoldAsk, now_ms: int) -> tuple[HoldAnswer, HoldPlaced | None]:
        """Decides on one task; what it grants against a budget is the second part, to be journaled before it is told.

        Asking again for a task that is open is granted again and changes nothing.
        """
        if ask.waited and not self._stands(ask.key_id, now_ms):
            return key_ended(ask), None
        books = self._books(ask.key_id)
        standing = self.tasks.get(ask.task)
        if standing is not None:
            # By what was held, whatever the least is by the prices of now.
            is_least = standing.hold is not None and bool(ask.picos_least) and standing.hold.picos < ask.picos
            return HoldAnswer(rates=_rates(books, now_ms), is_least=is_least), standing.hold
        for book in books:
            if (too_fast := book.refusal(ask.tokens, now_ms, has_place=ask.checks)) is not None:
                return slow_down(ask, too_fast, now_ms, _rates(books, now_ms)), None
        covering = self.covering(ask.project, ask.key_id)
        picos = ask.picos
        if ask.picos_least and any(picos > max(0, budget.left(now_ms)) for budget in covering):
            picos = ask.picos_least
        for budget in covering:
            if picos > max(0, budget.left(now_ms)):
                return no_money(ask, picos, budget, now_ms, _rates(books, now_ms)), None
        hold = None
        if covering:
            for budget in covering:
                budget.held += picos
            hold = HoldPlaced(
                task=ask.task,
                tenant=ask.tenant,
                picos=picos,
                expires_at_ms=ask.expires_at_ms,
                budgets=[budget.record.id for budget in covering],
                at_ms=now_ms,
            )
        for book in books:
            book.begin(ask.tokens, now_ms)
        self.tasks[ask.task] = OpenTask(ask.key_id, ask.tokens, ask.expires_at_ms, hold)
        return HoldAnswer(rates=_rates(books, now_ms), is_least=picos < ask.picos), hold

    def count(self, ask: HoldAsk, now_ms: int) -> HoldAnswer:
        """Counts answers that stood already as requests: no money is held for them, and none of them is open."""
        books = self._books(ask.key_id)
        if not ask.are_given:
            for book in books:
                if (too_fast := book.full(now_ms)) is not None:
                    return slow_down(ask, too_fast, now_ms, _rates(books, now_ms))
        for book in books:
            book.count(ask.hits, now_ms)
        return HoldAnswer(rates=_rates(books, now_ms))

    def _stands(self, key_id: str, now_ms: int) -> bool:
        """Whether a key still lets in, or one that it was rotated to; tokens of other issuers are not known here."""
        if not key_id or key_id.startswith(TOKEN_PREFIX):
            return True
        own = next((key for key in self.record.keys if key.id == key_id), None)
        if own is not None and own.revoked:
            return False
        return any(
            not key.revoked and (not key.expires_at_ms or now_ms < key.expires_at_ms)
            for key in self.record.keys
            if key is own or key_id in key.follows
        )

    def place(self, hold: HoldPlaced) -> None:
        """Takes over a hold that the journal tells of."""
        if (standing := self.tasks.get(hold.task)) is not None:
            _extend(standing, hold.expires_at_ms)
            return
        task = self.tasks[hold.task] = OpenTask("", 0, hold.expires_at_ms, hold)
        task.is_counted = False
        for budget_id in hold.budgets:
            if (budget := self.budgets.get(budget_id)) is not None:
                budget.held += hold.picos

    def renew(self, task_id: str, until_ms: int, now_ms: int) -> HoldPlaced | None:
        """Lets the hold of a task that waits for people stand longer; returns it where the journal must tell of it."""
        task = self.tasks.get(task_id)
        if task is None:
            return None
        if task.is_counted:
            task.is_counted = False
            for book in self._books(task.key_id):
                book.end(task.tokens, 0, now_ms)
        return task.hold if _extend(task, until_ms) else None

    def capture(self, captured: HoldCaptured) -> bool:
        """Captures an ended attempt's charge out of its task's hold; true where the journal must tell of it.

        Told again it changes nothing, nor for a task that is not open: that one's settlement captures all of it.
        """
        task = self.tasks.get(captured.task)
        if task is None or task.hold is None or captured.picos <= 0 or captured.attempt in task.captured:
            return False
        self._spend(task, task.hold, captured)
        for budget in self.covering(captured.project, captured.key_id):
            budget.window.add(captured.at_ms, captured.picos)
        return True

    def recall(self, captured: HoldCaptured) -> None:
        """Takes over a capture that the windows hold already."""
        task = self.tasks.get(captured.task)
        if task is None or task.hold is None:
            self._late.setdefault(captured.task, {})[captured.attempt] = captured
        else:
            self._spend(task, task.hold, captured)

    def captured(self) -> list[HoldCaptured]:
        """Returns what was captured for tasks that did not settle yet."""
        told = [*(task.captured for task in self.tasks.values() if task.captured), *self._late.values()]
        return [captured for of_task in told for captured in of_task.values()]

    def end(self, ended: HoldEnded, tokens: int = 0) -> bool:
        """Ends a task: gives its hold back and captures the rest of its charge; true where the journal must say so."""
        task = self.tasks.pop(ended.task, None)
        hold = task.hold if task is not None else None
        before = self._late.pop(ended.task, {})
        if task is not None and hold is not None:
            before = task.captured or before
            self._give_back(hold, task.left)
            if ended.picos > hold.picos:
                self.over_hold += 1
        key_id = ended.key_id or (task.key_id if task is not None else "")
        for book in self._books(key_id):
            if task is None or not task.is_counted:
                book.used(tokens, ended.at_ms)
            else:
                book.end(task.tokens, tokens, ended.at_ms)
        if ended.why == "released":
            if before:
                self._late[ended.task] = before
            return hold is not None
        for budget in self.covering(ended.project, ended.key_id):
            for at_ms, picos in _rest(ended, before):
                budget.window.add(at_ms, picos)
        return hold is not None or bool(self.budgets)

    def drop(self, task_id: str) -> None:
        """Forgets a task whose end the windows hold already."""
        task = self.tasks.pop(task_id, None)
        if task is not None and task.hold is not None:
            self._give_back(task.hold, task.left)
        self._late.pop(task_id, None)

    def expire(self, now_ms: int) -> list[str]:
        """Forgets the tasks whose time is over, and returns them."""
        over = [name for name, task in self.tasks.items() if task.expires_at_ms < now_ms]
        for name in over:
            task = self.tasks.pop(name)
            if task.hold is not None:
                self._give_back(task.hold, task.left)
            if task.captured:
                self._late[name] = task.captured
            for book in self._books(task.key_id) if task.is_counted else ():
                book.end(task.tokens, 0, now_ms)
        for name, captured in list(self._late.items()):
            if max(one.at_ms for one in captured.values()) < now_ms - LATE_MS:
                del self._late[name]
        return over

    def holds(self) -> list[OpenHold]:
        """Returns the holds that stand."""
        return [
            OpenHold(task=name, tenant=self.record.id, picos=task.left, expires_at_ms=task.expires_at_ms)
            for name, task in self.tasks.items()
            if task.hold is not None
        ]

    def windows(self) -> list[WindowState]:
        """Returns what each budget's window holds."""
        return [
            WindowState(
                tenant=self.record.id,
                budget=name,
                spent=budget.window.amounts(),
                carried_picos=getattr(budget.window, "carried", 0),
            )
            for name, budget in self.budgets.items()
        ]

    def rate_states(self) -> list[RateState]:
        """Returns what the slow rate windows hold, where they hold anything."""
        found: list[RateState] = []
        for name, book in self._rates.items():
            day, tokens = book.slow()
            if day or tokens:
                found.append(RateState(tenant=self.record.id, key_id=name, day_requests=day, window_tokens=tokens))
        return found

    def take_rates(self, state: RateState) -> None:
        """Takes over what the slow windows of a former owner held."""
        name = self.first(state.key_id)
        if (book := self._rates.get(name)) is not None:
            self._rates[name] = RateBook(
                book.limits, day_requests=state.day_requests, window_tokens=state.window_tokens
            )

    def _books(self, key_id: str) -> list[RateBook]:
        tenant = self._rates[OF_TENANT]
        own = self._rates.get(self.first(key_id)) if key_id else None
        return [tenant] if own is None else [tenant, own]

    def first(self, key_id: str) -> str:
        """Returns the first key of a key's lineage: what is counted for one of them is counted for all."""
        return self.record.lineages.get(key_id, key_id)

    def _spend(self, task: OpenTask, hold: HoldPlaced, captured: HoldCaptured) -> None:
        before = task.left
        task.captured[captured.attempt] = captured
        self._give_back(hold, before - task.left)

    def _give_back(self, hold: HoldPlaced, picos: int) -> None:
        for budget_id in hold.budgets:
            if (budget := self.budgets.get(budget_id)) is not None:
                budget.held = max(0, budget.held - picos)


def _extend(task: OpenTask, until_ms: int) -> bool:
    """Lets a task's hold stand longer; false where it does already, or there is none."""
    if until_ms <= task.expires_at_ms:
        return False
    task.expires_at_ms = until_ms
    if task.hold is None:
        return False
    task.hold = msgspec.structs.replace(task.hold, expires_at_ms=until_ms)
    return True


def _rest(ended: HoldEnded, before: dict[int, HoldCaptured]) -> Amounts:
    """Returns what a settlement adds to the windows: its charge less what its attempts had captured.

    Where they had captured more, that is taken back at the times at which it was captured, the latest first.
    """
    rest = ended.picos - sum(one.picos for one in before.values())
    if rest >= 0:
        return [(ended.at_ms, rest)]
    taken: Amounts = []
    for one in sorted(before.values(), key=lambda one: one.at_ms, reverse=True):
        back = min(one.picos, -rest)
        taken.append((one.at_ms, -back))
        rest += back
    return taken


def _rates(books: list[RateBook], now_ms: int) -> Rates:
    requests = tightest([bound for book in books for bound in book.requests(now_ms)])
    tokens = tightest([bound for book in books for bound in book.tokens(now_ms)])
    return Rates(
        limit_requests=requests.limit if requests else 0,
        remaining_requests=requests.remaining if requests else 0,
        reset_requests_ms=max(0, requests.resets_at_ms - now_ms) if requests else 0,
        limit_tokens=tokens.limit if tokens else 0,
        remaining_tokens=tokens.remaining if tokens else 0,
        reset_tokens_ms=max(0, tokens.resets_at_ms - now_ms) if tokens else 0,
    )
