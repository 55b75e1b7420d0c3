"""Several real Redis servers that work together: a cluster, a master with replicas that a Sentinel looks after, TLS."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import os
import signal
import ssl
import threading
import time
from contextlib import suppress
from pathlib import Path

import redis
from ports import free_port
from redis_servers import RedisServer

NODE_TIMEOUT_MS = 700


def until(done, seconds=20.0):
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            raise AssertionError("it does not come to be")
        time.sleep(0.03)


def send(server, number):
    """Send a signal to a server."""
    os.kill(server._process.pid, number)


def ask(server, *words):
    """Run a command on one server."""
    tls = {"ssl": True, "ssl_ca_certs": str(server.tls)} if server.tls is not None else {}
    with redis.Redis("127.0.0.1", server.port, socket_timeout=5, **tls) as client:
        return client.execute_command(*words)


class ClusterOfThree:
    """Three masters with a third of the slots each, and a replica of the first; a context manager.

    With certificates (``make_certificates``) they speak TLS, to each other as well.
    """

    def __init__(self, binary, folder, certificates=None):
        self.folder = Path(folder)
        options = (
            ("cluster-enabled", "yes"),
            ("cluster-node-timeout", str(NODE_TIMEOUT_MS)),
            ("repl-diskless-sync-delay", "0"),
        )
        self.nodes = []
        for number in range(4):
            (self.folder / str(number)).mkdir()
            bus = ("cluster-port", str(free_port()))
            self.nodes.append(RedisServer(binary, self.folder / str(number), *options, bus))
            self.nodes[-1].bus = bus[1]
            if certificates is not None:
                self.nodes[-1].speak_tls(*certificates)
                self.nodes[-1]._command += ["--tls-cluster", "yes"]
        self.url = f"redis+cluster://127.0.0.1:{self.nodes[1].port}"
        if certificates is not None:
            self.url = f"rediss+cluster://127.0.0.1:{self.nodes[1].port}?ssl_ca_certs={certificates[2]}"

    def __enter__(self):
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self):
        for node in self.nodes:
            node.start()
        for number, (first, last) in enumerate([(0, 5460), (5461, 10922), (10923, 16383)]):
            ask(self.nodes[number], "CLUSTER", "ADDSLOTSRANGE", first, last)
            ask(self.nodes[number], "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in self.nodes[1:]:
            ask(self.nodes[0], "CLUSTER", "MEET", "127.0.0.1", node.port, node.bus)
        until(lambda: all(len(self.ids(node)) == 4 for node in self.nodes))
        until(self._replicates)
        until(lambda: all(self.is_well(node) for node in self.nodes))
        until(lambda: ask(self.nodes[3], "INFO", "replication")["master_link_status"] == "up")

    def _replicates(self):
        with suppress(redis.ResponseError):  # until it has heard of it
            ask(self.nodes[3], "CLUSTER", "REPLICATE", self.id_of(self.nodes[0]))
            return True
        return False

    def __exit__(self, *_):
        for node in self.nodes:
            node.kill()

    def ids(self, node):
        """Those that a node knows."""
        lines = ask(node, "CLUSTER", "NODES").decode().splitlines()
        return [line.split(" ")[0] for line in lines if "handshake" not in line]

    def id_of(self, node):
        """The name of a node in the cluster."""
        return ask(node, "CLUSTER", "MYID").decode()

    def is_well(self, node):
        """Whether it serves."""
        return b"cluster_state:ok" in ask(node, "CLUSTER", "INFO")

    def master_of(self, slot):
        """The node that serves a slot: the first two of them move it to and fro."""
        with suppress(redis.RedisError, OSError):
            for first, last, *rest in ask(self.nodes[1], "CLUSTER", "SLOTS"):
                if first <= slot <= last:
                    return next(node for node in self.nodes if node.port == rest[0][1])
        return None

    def move(self, slot, to):
        """Move a slot to another node, key by key, while it is in use."""
        source = self.master_of(slot)
        ask(to, "CLUSTER", "SETSLOT", slot, "IMPORTING", self.id_of(source))
        ask(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", self.id_of(to))
        while keys := ask(source, "CLUSTER", "GETKEYSINSLOT", slot, 100):
            ask(source, "MIGRATE", "127.0.0.1", to.port, "", 0, 5000, "KEYS", *keys)
        for node in (to, source, *(one for one in self.nodes[:3] if one not in (to, source))):
            ask(node, "CLUSTER", "SETSLOT", slot, "NODE", self.id_of(to))


class Watched:
    """A master, replicas, and a Sentinel that promotes one of them; a context manager. Certificates: as above."""

    def __init__(self, binary, folder, replicas=1, certificates=None):
        folder = Path(folder)
        for name in ("s", *map(str, range(replicas + 1))):
            (folder / name).mkdir()
        self.servers = [
            RedisServer(
                binary, folder / str(number), ("repl-diskless-sync-delay", "0"), ("repl-ping-replica-period", "1")
            )
            for number in range(replicas + 1)
        ]
        self.sentinel = RedisServer(binary, folder / "s")
        config = folder / "s" / "sentinel.conf"
        port = f"port {self.sentinel.port}\n"
        if certificates is not None:
            for server in (self.sentinel, *self.servers):
                server.speak_tls(*certificates)
            files = zip(("cert", "key", "ca-cert"), certificates, strict=True)
            port = f"port 0\ntls-port {self.sentinel.port}\ntls-replication yes\ntls-auth-clients no\n"
            port += "".join(f"tls-{name}-file {file}\n" for name, file in files)
        config.write_text(
            f"{port}dir {folder / 's'}\n"
            f"sentinel monitor books 127.0.0.1 {self.servers[0].port} 1\n"
            "sentinel down-after-milliseconds books 400\nsentinel failover-timeout books 3000\n"
        )
        self.sentinel._command = [binary, str(config), "--sentinel"]
        self.url = f"redis+sentinel://127.0.0.1:{free_port()},127.0.0.1:{self.sentinel.port}/books/0"
        if certificates is not None:
            self.url = f"rediss{self.url.removeprefix('redis')}?ssl_ca_certs={certificates[2]}"

    def __enter__(self):
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self):
        self.servers[0].start()
        for replica in self.servers[1:]:
            replica.start()
            ask(replica, "REPLICAOF", "127.0.0.1", self.servers[0].port)
        for replica in self.servers[1:]:
            until(lambda replica=replica: ask(replica, "INFO", "replication")["master_link_status"] == "up")
        self.sentinel.start()
        until(lambda: len(ask(self.sentinel, "SENTINEL", "REPLICAS", "books")) == len(self.servers) - 1, 30)

    def __exit__(self, *_):
        for server in (self.sentinel, *self.servers):
            server.kill()

    def master(self):
        """Who Sentinel says is it."""
        _, port = ask(self.sentinel, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", "books")
        return next(server for server in self.servers if server.port == int(port))


def cut_off(replica):
    """Let a replica hear of its master no more."""
    ask(replica, "REPLICAOF", "127.0.0.1", free_port())


def freeze(server):
    """Let it keep its sockets open and answer nothing."""
    send(server, signal.SIGSTOP)


def thaw(server):
    """Let it go on."""
    send(server, signal.SIGCONT)


class TLSFront:
    """What ends TLS in front of a server, as a managed service or ``stunnel`` does; a context manager.

    The servers of the wheels are built without TLS.
    """

    def __init__(self, server, certificates):
        self._server = server
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(*certificates[:2])
        self.port = free_port()
        self.url = f"rediss://127.0.0.1:{self.port}/0"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._ready = threading.Event()

    def _run(self):
        asyncio.set_event_loop(self._loop)
        with suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self):
        self._task = asyncio.current_task()
        async with await asyncio.start_server(self._joined, "127.0.0.1", self.port, ssl=self._context):
            self._ready.set()
            await asyncio.Event().wait()

    async def _joined(self, reader, writer):
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self._server.port)
        await asyncio.gather(_pass_on(reader, inner_writer), _pass_on(inner_reader, writer))

    def __enter__(self):
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(10)


async def _pass_on(reader, writer):
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    except (OSError, asyncio.CancelledError):
        pass
    finally:
        writer.close()


def make_certificates(folder, name="127.0.0.1"):
    """Make an authority and a certificate of it for an address; return the files of certificate, key, authority."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    folder = Path(folder)
    now = dt.datetime.now(dt.UTC)

    def signed(subject, key, issuer, issuer_key, extension, *, critical):
        made = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
        made = made.serial_number(x509.random_serial_number()).not_valid_before(now - dt.timedelta(hours=1))
        made = made.not_valid_after(now + dt.timedelta(days=1)).add_extension(extension, critical=critical)
        return made.sign(issuer_key, hashes.SHA256())

    def named(text):
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])

    ours, theirs = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root = signed(
        named("root"), ours, named("root"), ours, x509.BasicConstraints(ca=True, path_length=None), critical=True
    )
    where = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(name))])
    leaf = signed(named("server"), theirs, named("root"), ours, where, critical=False)
    files = folder / "server.crt", folder / "server.key", folder / "root.crt"
    files[0].write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        theirs.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    files[2].write_bytes(root.public_bytes(serialization.Encoding.PEM))
    return files
