"""Responds to callers' requests for jobs (`Prefer: respond-async`) and about them (`/_proxy/jobs/ID`)."""

from collections.abc import Mapping
from typing import Final

import structlog

from nanonets_proxy.core.http.prefer import prefers_async
from nanonets_proxy.core.jobs.lifecycle import JobEvent
from nanonets_proxy.errors import (
    JobMethodNotAllowed,
    JobNotCancellable,
    JobResponseMethodNotAllowed,
    JobWithoutResponse,
    PathNotFound,
)
from nanonets_proxy.jobs.jobs import Jobs
from nanonets_proxy.jobs.records import JobView
from nanonets_proxy.jobs.responses import PREFIX, RESULT, send_result, state_response
from nanonets_proxy.jobs.submission import Submission
from nanonets_proxy.request.authorizer import Authorizer
from nanonets_proxy.request.context import RequestContext
from nanonets_proxy.server.connection.body_times import BodyTimes

_RESERVED: Final = "/_proxy"
_NOT_STORED_METHODS: Final = frozenset({"HEAD", "OPTIONS"})
_READING_METHODS: Final = frozenset({"GET", "HEAD"})


class JobEndpoint:
    """The requests of one environment's callers that concern jobs."""

    def __init__(
        self, jobs: Jobs, times: BodyTimes, authorizer: Authorizer | None, log_fields: Mapping[str, str]
    ) -> None:
        self._jobs = jobs
        self._times = times
        self._authorizer = authorizer
        self._log = structlog.get_logger(**log_fields)

    def owns(self, target: str) -> bool:
        """Returns whether a target belongs to the jobs: `/_proxy` and all below it."""
        return target.startswith(_RESERVED) and target[len(_RESERVED) : len(_RESERVED) + 1] in ("", "/", "?")

    async def take(self, context: RequestContext) -> bool:
        """Responds to a request about jobs, or for a job. Returns False for a request that is to be forwarded."""
        if self.owns(context.target):
            await self._serve(context)
            return True
        prefer = context.head.prefer
        # During a drain too: a repeated Idempotency-Key must find its job, which the next process sends.
        if not prefer or context.method in _NOT_STORED_METHODS or not prefers_async(prefer):
            return False
        await Submission(self._jobs, context, self._times, self._authorizer).run()
        return True

    async def _serve(self, context: RequestContext) -> None:
        """Responds to GET, HEAD and DELETE of a job, and to GET and HEAD of its response."""
        request, record, response = context.request, context.record, context.response
        path, _, _ = context.target.partition("?")
        job_id = path.removeprefix(PREFIX)
        wants_result = job_id.endswith(RESULT)
        job_id = job_id.removesuffix(RESULT)
        view = await self._jobs.read(lambda database: database.view(job_id)) if path.startswith(PREFIX) else None
        if view is None or view.caller != record.caller:  # nobody learns that a job of another caller exists
            raise PathNotFound("There is no such job of this caller.")
        keep_alive = request.keep_alive and request.body.is_complete and not self._jobs.is_draining
        if wants_result:
            await self._send_result(context, view, keep_alive=keep_alive)
            return
        if context.method == "DELETE":
            view = await self._cancel(view)
        elif context.method not in _READING_METHODS:
            raise JobMethodNotAllowed(f"A job does not support {context.method}.")
        record.status, response.keep_alive = 200, keep_alive
        own = state_response(200, view, self._jobs.expected_s(view), record.request_id)
        response.sent_bytes = own.send(request, keep_alive=keep_alive)

    async def _send_result(self, context: RequestContext, view: JobView, *, keep_alive: bool) -> None:
        """Sends a job's response. Raises JobWithoutResponse, PathNotFound or InternalError."""
        if context.method not in _READING_METHODS:
            raise JobResponseMethodNotAllowed(f"The response of a job does not support {context.method}.")
        job_id, result = view.id, None
        if view.status is not None:
            result = await self._jobs.read(lambda database: database.result(job_id))
        if result is None:
            message = f"The job has no response: it is {view.state}."
            raise JobWithoutResponse(message, state=view.state, job=PREFIX + job_id)
        context.record.status = result.status
        file = self._jobs.directory.response_body(job_id).path
        await send_result(result, file, context.request, context.response, keep_alive=keep_alive)

    async def _cancel(self, view: JobView) -> JobView:
        """Cancels a queued job. Raises JobNotCancellable."""
        job_id = view.id
        is_cancelled, latest = await self._jobs.change(
            lambda database: (database.change(job_id, JobEvent.CANCEL), database.view(job_id))
        )
        if latest is None:
            raise PathNotFound("There is no such job of this caller.")
        if not is_cancelled:
            message = f"Only a queued job can be cancelled: this one is {latest.state}."
            raise JobNotCancellable(message, state=latest.state)
        self._jobs.runner.withdraw(job_id)
        self._jobs.directory.remove_files(job_id)
        self._log.info("job_cancelled", id=job_id)
        self._jobs.wake(job_id)
        return latest
