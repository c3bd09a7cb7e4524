"""The consumer group of a queue in Redis, and the job to which the queue belongs."""

from contextlib import suppress

from redis.exceptions import RedisError, ResponseError

from worker.logs import logger
from worker.queues.contract import JobIdentity, JobMismatchError
from worker.queues.redis.connection import Connection, queue_error, text

log = logger()

UPGRADED_KEYS = ("held", "renewed", "dead", "dead_by_community")


class Group:
    """Makes the group, also after Redis lost it, and checks that the queue is this job's."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._identity: JobIdentity | None = None
        self._was_opened = False

    async def open(self, identity: JobIdentity) -> None:
        """Make the group, and check that the queue belongs to the same job.

        Raises QueueAwayError if Redis cannot be reached, QueueError if it cannot be used,
        JobMismatchError if the queue belongs to another job.
        """
        self._identity = identity
        try:
            # First, so that a run of another job leaves no group behind.
            await self._identify()
            await self.make()
            await self._connection.run("upgrade", UPGRADED_KEYS, [])
            await self._warn_of_possible_loss()
        except (RedisError, OSError) as error:
            raise queue_error(error) from None
        self._was_opened = True

    async def make(self) -> None:
        """Make the group if there is none. Raises RedisError, OSError."""
        url, redis = self._connection.url, self._connection.redis
        try:
            await self._connection.once(
                redis.xgroup_create(url.stream, url.group, "0", mkstream=True)
            )
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise
        else:
            if self._was_opened:
                log.error(
                    "the queue in Redis was gone and is made anew: enqueue again what it held",
                    stream=url.stream,
                )
                await self._identify()

    async def _identify(self) -> None:
        if self._identity is None:
            return
        url, redis = self._connection.url, self._connection.redis
        given = {
            "app": self._identity.app,
            "key_field": self._identity.key_field,
            "topic_ids": self._identity.topic_ids,
            "group": url.group,
        }
        for name, value in given.items():
            await self._connection.once(redis.hsetnx(url.key("job"), name, value))
            known = text(await self._connection.once(redis.hget(url.key("job"), name)))
            if known != value:
                raise JobMismatchError(
                    f"the queue {url.stream} belongs to a job with {name} "
                    f"{known or 'unset'}, this run has {value or 'unset'}: "
                    "give it the same, or another stream"
                )

    async def _warn_of_possible_loss(self) -> None:
        with suppress(ResponseError):  # this user of Redis may lack the right to ask
            asked = ("appendonly", "save", "maxmemory", "maxmemory-policy")
            # One at a time: Redis 6.2 accepts no list of names.
            config = {name: await self._configured(name) for name in asked}
            if config["maxmemory"] != "0" and config["maxmemory-policy"] != "noeviction":
                log.warning(
                    "Redis throws away what it has no room for, this queue too: "
                    "set maxmemory-policy noeviction"
                )
            if config["appendonly"] == "no" and not config["save"]:
                log.warning(
                    "Redis keeps nothing on disk: what it holds is lost when it stops "
                    "(set appendonly yes, and appendfsync always to lose nothing)"
                )

    async def _configured(self, name: str) -> str:
        found = await self._connection.once(self._connection.redis.config_get(name))
        return str(found.get(name, ""))
