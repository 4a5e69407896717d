"""A server that ends answers who waits at its door, and nobody there can keep it from ending."""

import socket
import threading

import pytest

from entrypoints.process.refusing import refuse_waiting


def _connected(listener: socket.socket) -> socket.socket:
    return socket.create_connection(listener.getsockname(), timeout=5)


@pytest.mark.line("36")
@pytest.mark.invariant("X2")
def test_a_client_that_says_a_byte_now_and_then_keeps_no_server_from_ending() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    slow, silent, usual = (_connected(listener) for _ in range(3))
    is_over = threading.Event()

    def drip() -> None:
        while not is_over.wait(0.1):
            try:
                slow.send(b"x")
            except OSError:
                return

    dripping = threading.Thread(target=drip, daemon=True)
    dripping.start()
    usual.sendall(b"GET /v1/runs HTTP/1.1\r\nHost: x\r\n\r\n")
    ending = threading.Thread(target=refuse_waiting, args=(listener,), daemon=True)
    ending.start()
    try:
        ending.join(10)
        assert not ending.is_alive()
        assert usual.recv(65_536).startswith(b"HTTP/1.1 503 ")  # And who asks as usual is answered.
        assert silent.recv(65_536) == b""
    finally:
        is_over.set()
        dripping.join()
        for client in (slow, silent, usual):
            client.close()
