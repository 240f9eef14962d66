"""Settings of durable jobs."""

from typing import Annotated, Final

from pydantic import Field

from nanonets_proxy.settings.model.base import ProgramSettings
from nanonets_proxy.settings.model.fields import OptionalPath
from nanonets_proxy.settings.model.quantities import Count, Duration, Metavar, Size

_GIB: Final = 2**30


class JobSettings(ProgramSettings):
    """Where jobs are stored, for how long, and how many."""

    jobs: OptionalPath = Field(
        None,
        description="Directory for durable jobs. A request with Prefer: respond-async is stored there before it is "
        "sent, and then its response. Its caller gets 202 and polls /_proxy/jobs/ID. The disk must be local; in a "
        "container, the directory is inside a volume that the container's user may write. Empty: no jobs; such "
        "requests are served as usual.",
    )
    jobs_keep: Duration = Field(86400.0, description="How long a job that has ended is kept, with its response.")
    max_jobs: Annotated[int, Count(1, 1_000_000), Metavar("NUMBER")] = Field(
        10_000, description="Maximum jobs that are queued or being sent."
    )
    jobs_total: Size = Field(
        4 * _GIB,
        description="Disk space for jobs and their responses together. The proxy accepts no job beyond it.",
    )
