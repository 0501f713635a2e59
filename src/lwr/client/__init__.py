"""What a submitter needs: send a job to an LWR server, wait for it, bring its results back.

    with RemoteServer("http://localhost:8913/", token) as server:
        request = JobRequest("wc -l reads.fa > n.txt", (LocalFile("input", "reads.fa"),), outputs=("n.txt",))
        outcome = run_job(server, request)

Synchronous. Knows the server only by its REST dialect; must not import `lwr.server`.
"""

from lwr.client.described import DescribedJob, resume_described, run_described
from lwr.client.description import InputFile, InputKind, JobDescription
from lwr.client.events import Event, GivingUp, Moved, Moving, Retrying, SetUp, StageBegun, StateChanged, Submitted
from lwr.client.job import RemoteJob, resume_job, run_job
from lwr.client.life import JobServer, Outcome, Travel
from lwr.client.places import RemotePlaces
from lwr.client.plan import JobRequest, LocalFile
from lwr.client.remote import RemoteServer
from lwr.client.status import RemoteStatus
from lwr.transfer.partial import Transferred
from lwr.transfer.retry import Patience

__all__ = [
    "DescribedJob",
    "Event",
    "GivingUp",
    "InputFile",
    "InputKind",
    "JobDescription",
    "JobRequest",
    "JobServer",
    "LocalFile",
    "Moved",
    "Moving",
    "Outcome",
    "Patience",
    "RemoteJob",
    "RemotePlaces",
    "RemoteServer",
    "RemoteStatus",
    "Retrying",
    "SetUp",
    "StageBegun",
    "StateChanged",
    "Submitted",
    "Transferred",
    "Travel",
    "resume_described",
    "resume_job",
    "run_described",
    "run_job",
]
