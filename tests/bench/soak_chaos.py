"""What goes wrong in the soak test, and who launches pools again afterwards."""

import collections
import signal
import threading
import time

from control_harness import processes, send

TIMEOUT_S = 5  # After which a pool notices a rank that hangs.


class PoolKeeper(threading.Thread):
    """Keeps pools running, as systemd would. A launch that has ended must have taken all its processes with it."""

    def __init__(self, plane, sizes, random):
        super().__init__(daemon=True)
        self.plane, self.sizes, self.random = plane, sizes, random
        self.marks, self.mistakes, self.launches = [], [], 0
        self._pools, self._again, self._end = {}, {}, threading.Event()
        for name in sizes:
            self._launch(name)

    def pools(self):
        return list(self._pools.values())

    def _launch(self, name):
        pool = self.plane.pool(name, self.sizes[name], f"--timeout_s={TIMEOUT_S}", wait=False, grace_s=2)
        self.marks.append(pool.program.mark)
        self.launches += 1
        self._pools[name] = pool

    def run(self):
        while not self._end.wait(0.1):
            for name, pool in list(self._pools.items()):
                if pool.program.running():
                    continue
                if name not in self._again:
                    self._again[name] = time.monotonic() + self.random.uniform(0.2, 2)
                if time.monotonic() >= self._again[name]:
                    del self._again[name]
                    self._must_be_gone(pool)
                    self._launch(name)

    def _must_be_gone(self, pool, limit_s=15):
        end = time.monotonic() + limit_s
        while left := processes(pool.program.mark):
            if time.monotonic() > end:
                said = [(pid, arguments[:1]) for pid, (arguments, _) in left.items()]
                self.mistakes.append(f"pool {pool.name} ended and left {said} behind")
                for pid in left:
                    send(pid, signal.SIGKILL)
                return
            time.sleep(0.05)

    def settle(self):
        """Waits until what was hit last has been noticed, and its pool is back. Nothing is hit any more."""
        time.sleep(2 * TIMEOUT_S)
        for name in self.sizes:
            self.plane.wait_for_pool(name, "IDLE")

    def stop(self):
        """SIGTERM to all, which must end in an orderly way."""
        self._end.set()
        self.join()
        for pool in self.pools():
            pool.terminate()
        for pool in self.pools():
            code = pool.program.wait()
            if code != 0:
                self.mistakes.append(f"pool {pool.name} left with exit code {code}")
            self._must_be_gone(pool)


class Chaos(threading.Thread):
    """Hits something every few seconds; the server only until `spare_server_from`."""

    def __init__(self, plane, keeper, random, spare_server_from):
        super().__init__(daemon=True)
        self.plane, self.keeper, self.random, self.spare_server_from = plane, keeper, random, spare_server_from
        self.hits = collections.Counter()
        self._end = threading.Event()

    def run(self):
        while not self._end.wait(self.random.uniform(2, 7)):
            kinds = {self.kill_rank: 35, self.kill_pool: 15, self.kill_mpirun: 10, self.hang: 10}
            kinds[self.terminate_pool] = 15
            if time.monotonic() < self.spare_server_from:
                kinds[self.kill_server] = 15
            kind = self.random.choices(list(kinds), list(kinds.values()))[0]
            if kind() is not False:
                self.hits[kind.__name__] += 1

    def stop(self):
        self._end.set()
        self.join()

    def _pool(self):
        return self.random.choice(self.keeper.pools())

    def _rank(self, number):
        ranks = list(self._pool().ranks().values())
        if not ranks:
            return False
        return send(self.random.choice(ranks), number)

    def kill_rank(self):
        return self._rank(signal.SIGKILL)

    def hang(self):
        return self._rank(signal.SIGSTOP)

    def kill_pool(self):
        self._pool().kill()

    def kill_mpirun(self):
        """The ranks are left alone, and must notice."""
        self._pool().program.process.kill()

    def terminate_pool(self):
        self._pool().terminate()

    def kill_server(self):
        self.plane.server.kill()
        self._end.wait(self.random.uniform(0, 3))
        self.plane.server.start()
