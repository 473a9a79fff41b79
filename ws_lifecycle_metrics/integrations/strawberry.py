"""Strawberry: an extension that counts each operation, and above all each subscription.

Nothing here attaches a context or resets a context variable: Strawberry may end a generator in
another task, and in another context, than the one that began it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import fields
from operator import attrgetter
from typing import Any

from strawberry.extensions import SchemaExtension
from strawberry.types.execution import ExecutionContext, PreExecutionError

from ..labels import OTHER
from ..store.operations import ANONYMOUS, Operation
from ..telemetry.logs import log_once, log_raised
from .graphql_ws import SERVED, Served, guarded, note_fault
from .orphans import Task, own_task

_now = time.monotonic_ns
_names = (item.name for item in fields(ExecutionContext))
_errors_of = attrgetter("pre_execution_errors" if "pre_execution_errors" in _names else "errors")


class LifecycleExtension(SchemaExtension):
    """Counts the operations of a schema in the worker's segment.

    Give the class: `Schema(..., extensions=[LifecycleExtension])`, before `MaskErrors`. It needs
    `LifecycleMiddleware` around the application; without it nothing is counted, and one line
    in the log says so. It raises nothing into an operation and adds nothing to a result.
    """

    def __init__(self, *, execution_context: Any = None) -> None:
        super().__init__(execution_context=execution_context)
        self._run: _Run | None = None

    def operation_name(self, context: ExecutionContext) -> str | None:
        """Return the name to count an operation under; None counts it as `anonymous`.

        Override it to name operations otherwise. What it returns is capped and made safe; an
        exception is logged, and the operation is counted as `anonymous`.
        """
        return context.operation_name

    # Synchronous generators serve both ways of Strawberry's, with an event loop and without.

    def on_operation(self) -> Iterator[None]:
        """Surround an operation from before it is parsed to its end."""
        run = guarded(SERVED.get(), self._began)
        how: type[BaseException] | None = None
        try:
            yield
        except BaseException as error:
            how = type(error)
            raise
        finally:
            if run is not None:
                guarded(run.served, run.ended, how)

    def on_execute(self) -> Iterator[None]:
        """Begin to count: only now, parsed and validated, an operation has a type."""
        run = self._run
        if run is not None:
            guarded(run.served, run.executes)
        yield

    def get_results(self) -> dict[str, Any]:
        """Add nothing to a result, but count that there is one.

        Strawberry asks each extension for it once a result, in the same place for every
        integration and transport: after the result is made and before it is handed over. That
        costs half a microsecond; `on_stream_result` would cost twenty times as much, because
        Strawberry makes new context managers for it each time, and counting frames in the
        middleware would miss server-sent events and multipart responses.
        """
        run = self._run
        if run is not None and run.is_subscription:
            try:  # as in `guarded`, whose call would cost as much again
                run.result()
            except Exception as error:  # noqa: BLE001  # our fault, not the operation's
                note_fault(run.served, error)
        return {}

    def _began(self) -> _Run | None:
        served = SERVED.get()
        if served is None:
            log_once("LifecycleExtension counts nothing: no LifecycleMiddleware serves it here")
            return None
        shared = self._is_shared()
        run = _Run(self, served, shared)
        # A shared object cannot tell whose result it is asked for.
        self._run = None if shared else run
        return run

    def _is_shared(self) -> bool:
        given: Iterable[object] = self.execution_context.schema.extensions
        shared = any(extension is self for extension in given)
        if shared:
            log_once(
                "LifecycleExtension was given as an instance, which all operations share: "
                "results are not counted; give the class, extensions=[LifecycleExtension]"
            )
        return shared


class _Run:
    """One operation: what is known of it between the hooks."""

    __slots__ = (
        *("_began_at", "_context", "_errors", "_event_errors", "_events", "_executed"),
        *("_extension", "_first_took", "_here", "_kind", "_operation", "_request", "_shared"),
        *("_span", "_steady", "_undecided", "_worker", "is_subscription", "served", "task"),
    )

    def __init__(self, extension: LifecycleExtension, served: Served, shared: bool) -> None:
        self.served = served
        self._shared = shared
        self._extension = extension
        # The operation's own: a shared extension is given another operation's later.
        self._context = extension.execution_context
        self._began_at = _now()
        self._request = served.operation_began()
        self._kind: str | None = None
        self._operation: Operation | None = None
        self._worker = served.worker
        self.task: Task | None = None
        self._steady: Operation | None = None  # set once only counting is left
        self.is_subscription = self._executed = self._here = self._undecided = False
        self._first_took = self._events = self._event_errors = 0
        self._errors: object = None
        # Older versions of Strawberry do not know the extensions of a message.
        self._span = served.begin_span(getattr(self._context, "operation_extensions", None))

    def executes(self) -> None:
        """Count the operation as begun, under its type and name."""
        kind = self._kind = self._context.operation_type.value
        name = self._name()
        self._executed = True
        self._errors = _errors_of(self._context)
        self._here = self.served.worker.is_here()  # and so will its results be
        self.is_subscription = kind == "subscription"
        if self.is_subscription and self.served.socket:
            self.task = own_task()
        self.served.run(lambda: self._begin(kind, name, admit=True))

    def _name(self) -> object:
        try:
            name = self._extension.operation_name(self._context)
        except Exception as error:  # noqa: BLE001  # the user's override may do anything
            log_raised("operation_name", "the operation is 'anonymous'", error)
            name = None
        return ANONYMOUS if name is None or name == "" else name

    def _begin(self, kind: str, name: object, *, admit: bool) -> None:
        self._enter(kind, name, admit=admit)
        if self.is_subscription:
            self.served.subscription_began(self)

    def _enter(self, kind: str, name: object, *, admit: bool) -> None:
        self._worker = self.served.worker
        self._operation = self._worker.operations.get(name, admit=admit)
        if self._operation is not None:
            self._operation.began(kind)

    def moved(self) -> None:
        """Count on in another worker: where it ends, it must have begun."""
        self._enter(str(self._kind), self._name(), admit=True)
        self._steady = self._steady and self._operation

    def result(self) -> None:
        """Count a result of a subscription that is about to be handed over."""
        # Strawberry keeps the list of the latest result that had errors: a new one is its own.
        errors = _errors_of(self._context)
        if errors is self._errors and self._steady is not None:
            self._events += 1
            self._steady.event()
            return
        failed = errors is not self._errors
        self._errors = errors
        if self._here:
            self._early(failed)
        else:
            self.served.run(lambda: self._count(failed))

    def _early(self, failed: bool) -> None:
        """Count a first result, or one with errors."""
        if self._first_took:
            self._decide()
            self._count(failed)
            self._settle()
            return
        self._first_took = max(1, _now() - self._began_at)
        # It may be that the source refused; the context tells once the result is made.
        self._undecided = failed
        if not failed:
            self._count_first(failed)
            self._settle()

    def _settle(self) -> None:
        """Let further results without errors be counted at once; a span wants their number too."""
        if self._span is None:
            self._steady = self._operation

    def _decide(self) -> None:
        undecided, self._undecided = self._undecided, False
        if undecided and not isinstance(self._context.result, PreExecutionError):
            self._count_first(failed=True)

    def _count_first(self, failed: bool) -> None:
        self._count(failed)
        if self._operation is not None:
            self._operation.first_event(self._first_took)

    def _count(self, failed: bool) -> None:
        self._events += 1
        self._event_errors += failed
        operation = self._operation
        if operation is not None:
            operation.event()
            if failed:
                operation.event_error()

    def ended(self, how: type[BaseException] | None) -> None:
        """Count the end; `how` is the class of the exception that came instead of a normal one."""
        took = _now() - self._began_at
        reason = self._reason(how)
        self.served.run(lambda: self.served.operation_ended(self._request))
        if not self._executed:
            self._learn_type()
            if reason in ("completed", "error") and not self._shared:
                reason = "rejected"
        kind, name = self._kind, self._name()
        if kind is not None:
            self.served.run(lambda: self._finish(kind, name, reason, took))
        elif self.served.socket:
            self.served.run(lambda: self._reject(name, reason))
        self._end_span(reason)

    def _end_span(self, reason: str) -> None:
        if self._span is None:
            return
        # Only a name that found a place among the bounded ones becomes the name of a span.
        name = self._operation.name if self._operation is not None else ANONYMOUS
        title = "" if name in (ANONYMOUS, OTHER) else name
        events, errors = self._events, self._event_errors
        error = _source_error(self._context.result) if reason == "error" else None
        self._span.ended(self._kind, title, reason, events=events, event_errors=errors, error=error)

    def _learn_type(self) -> None:
        """Find the type of an operation that was refused before it was executed, if it has one."""
        with suppress(RuntimeError):  # no valid document, or no such operation in it
            self._kind = self._context.operation_type.value

    def _reject(self, name: object, reason: str) -> None:
        operation = self.served.worker.operations.get(name, admit=False)
        if operation is not None:
            operation.ended(reason)

    def _finish(self, kind: str, name: object, reason: str, took: int) -> None:
        if not self._executed:
            # What was not executed takes no other operation's place among the names.
            self._enter(kind, name, admit=self._shared)
        elif self._worker is not self.served.worker:
            self.moved()
        self._decide()
        operation = self._operation
        if operation is not None:
            operation.finished(kind, took)
            if kind == "subscription":
                operation.ended(reason)
        if self._executed and self.is_subscription:
            self.served.subscription_ended(self)

    def _reason(self, how: type[BaseException] | None) -> str:
        result = self._context.result
        if isinstance(result, PreExecutionError):
            return "rejected"
        if how is None:
            return "completed" if _source_error(result) is None else "error"
        if issubclass(how, Exception):
            return "error"
        # The consumer cancels what waits for a result, and closes what waits to hand one over.
        otherwise = "consumer_gone" if how is GeneratorExit else "cancelled"
        return self.served.end_reason(self._request, otherwise)


def _source_error(result: Any) -> BaseException | None:
    """Return the exception from the source that a last result tells of: no field has raised it."""
    if getattr(result, "data", None) is not None:
        return None
    for error in getattr(result, "errors", None) or ():
        if error.path is None:
            raised: BaseException = error.original_error or error
            return raised
    return None
