"""The claim-check store: chunks and outcomes in Redis or Valkey.

Every key of a job holds the job's id as its hash tag, so a cluster keeps them together and
the scripts may touch them all. They expire `job_ttl_s` after the producer last touched
them; the producer does so for as long as it lives.

=========================  ====  ========================================================
key                        type  holds
=========================  ====  ========================================================
``pt:{<job>}:job``         hash  ``spec``: the `JobSpec`; ``stop``: index of the first
                                 discarded chunk. The job has ended if the key is absent.
``pt:{<job>}:in``          hash  part → frame. A field means: not settled.
``pt:{<job>}:claims``      hash  part → worker that has taken it, and when.
``pt:{<job>}:out``         hash  part → outcome, until the collector has it.
``pt:{<job>}:done``        list  notices the collector blocks on: ``<part> <bytes>`` if a part
                                 was settled, with the size of its outcome,
                                 ``!<part> <task> <how>`` if its process died,
                                 ``?<part> <task> <worker> <code>`` if a worker with other
                                 code declined it, or ``~<part> <task> <why>`` if its input is
                                 not signed as it must be.
``pt:workers:<queue>``     hash  worker → when it last said that it lives, and what it runs.
``pt:jobs:<queue>``        zset  job → when its producer last said that chunks of it are
                                 under way. They share the default window.
=========================  ====  ========================================================

A part is a chunk, or a piece of one that was cut because it kills processes; its key begins
with the chunk's index. Settling is one script: it removes the part's input, and only who
removed it may store the outcome. So the first outcome wins, and later ones, outcomes of
cancelled parts and those of jobs that are gone are all dropped by the same rule.

With a secret, all but ``stop``, the notice that a part was settled and ``pt:jobs`` is sealed; see
`signing`. Those three can only delay: a part that is sent again puts the job's hash right, an
outcome is believed for its own signature, and the more jobs there seem to be, the fewer chunks
each sends ahead.
"""

from pyrmute_tasks.distributed.store.producer_side import ProducerStore
from pyrmute_tasks.distributed.store.worker_side import WorkerStore

__all__ = ["Store"]


class Store(ProducerStore, WorkerStore):
    """The store as producers, collectors and workers use it.

    Safe to share between threads, not between processes.

    Args:
        settings: Its URL, and the expiry of keys.
    """
