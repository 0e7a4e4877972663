"""A stretch of network that a test can cut: forwards connections to an address until it is told to lose everything."""

import socket
import threading


class TcpProxy:
    """Listens on loopback and forwards to `target` ("HOST:PORT"). Use it in a `with`."""

    def __init__(self, target):
        host, port = target.rsplit(":", 1)
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self._listener.getsockname()[1]
        self._open = []
        self._lock = threading.Lock()
        self._cut = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._listener.close()
        with self._lock:
            for end in self._open:
                end.close()

    def cut(self):
        """From now on bytes vanish, in both directions. Nobody is told: connections stay open, new ones succeed."""
        self._cut.set()

    def mend(self):
        """Old connections are reset, as after any long silence; new ones are forwarded again."""
        with self._lock:
            for end in self._open:
                end.close()
            self._open.clear()
        self._cut.clear()

    def _accept(self):
        while True:
            try:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target)
            except OSError:
                if self._listener.fileno() < 0:
                    return
                continue
            with self._lock:
                self._open += [near, far]
            for source, sink in [(near, far), (far, near)]:
                threading.Thread(target=self._forward, args=(source, sink), daemon=True).start()

    def _forward(self, source, sink):
        try:
            while data := source.recv(1 << 16):
                if not self._cut.is_set():
                    sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
