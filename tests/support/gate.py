"""A gate that holds trials until a test opens it: works through any sandbox that leaves loopback open."""

from __future__ import annotations

import socket
import threading


class Gate:
    """Trials run `gate.wait` (a line of Python) and block there until `open()`; later ones pass at once."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        self.wait = f"import socket; socket.create_connection(('127.0.0.1', {port})).recv(1)"
        self._held: list[socket.socket] = []
        self._is_open = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                if self._is_open:
                    connection.close()
                else:
                    self._held.append(connection)

    def open(self) -> None:
        with self._lock:
            self._is_open = True
            for connection in self._held:
                connection.close()
            self._held.clear()

    def close(self) -> None:
        self.open()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
