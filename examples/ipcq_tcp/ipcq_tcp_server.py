"""A server of queues for the example: ``python ipcq_tcp_server.py PORT STATE_FILE``.

A request and its reply are one frame each: a length and a dict in JSON. The server remembers each reply for a minute,
by the identity of the operation. It writes its whole state to a file before each reply, so a restart loses nothing.
"""

import json, os, pickle, socketserver, struct, sys, threading, time

REMEMBERED = 60.0
changed = threading.Condition()
queues, replies = {}, {}
figures = {"requests": 0, "drop": 0, "after": 0}


def receive(file) -> dict | None:
    size = file.read(4)
    return json.loads(file.read(struct.unpack(">I", size)[0])) if len(size) == 4 else None


def frame(content: dict) -> bytes:
    data = json.dumps(content).encode()
    return struct.pack(">I", len(data)) + data


class Refused(Exception):
    """Its text is the name of one of ipcq's errors."""


def find(request: dict) -> dict:
    queue = queues.get(request["name"])
    if queue is None or request.get("incarnation", queue["incarnation"]) != queue["incarnation"]:
        raise Refused("QueueGone" if "incarnation" in request else "QueueNotFound")
    return queue


def create(request: dict) -> dict:
    if request["name"] in queues:
        raise Refused("QueueExists")
    limits = {key: request[key] for key in ("max_messages", "max_message_size")}
    queues[request["name"]] = {"incarnation": request["identity"], **limits, "items": [], "down": False}
    return attach(request)


def attach(request: dict) -> dict:
    return {key: value for key, value in find(request).items() if key != "items"}


def unlink(request: dict) -> None:
    try:
        find(request)
    except Refused:
        raise Refused("QueueNotFound") from None
    del queues[request["name"]]


def put(request: dict) -> int:
    queue = find(request)
    if queue["down"]:
        raise Refused("QueueShutDown")
    fitting = request["batch"][: queue["max_messages"] - len(queue["items"])]
    queue["items"] += fitting
    return len(fitting)


def get(request: dict) -> list[str]:
    queue = find(request)
    if queue["down"] and not queue["items"]:
        raise Refused("QueueShutDown")
    taken = queue["items"][: request["limit"]]
    if not request.get("peek"):
        del queue["items"][: len(taken)]
    return taken


def shutdown(request: dict) -> None:
    queue = find(request)
    queue["down"] = True
    if request["immediate"]:
        queue["items"].clear()


def wait(request: dict) -> None:
    def over() -> bool:
        queue = queues.get(request["name"])
        if queue is None or queue["incarnation"] != request["incarnation"] or queue["down"]:
            return True
        return bool(queue["items"]) if request["readable"] else len(queue["items"]) < queue["max_messages"]

    changed.wait_for(over, request["seconds"])


OPERATIONS = {
    "create": create, "attach": attach, "unlink": unlink, "put": put, "get": get, "shutdown": shutdown, "wait": wait,
    "exists": lambda request: request["name"] in queues,
    "names": lambda _: list(queues),
    "qsize": lambda request: len(find(request)["items"]),
    "figures": lambda _: dict(figures),
    "drop": lambda request: figures.update(drop=request["count"], after=request["after"]),
}  # fmt: skip
CHANGING = {"create", "unlink", "put", "get", "shutdown"}


def carry_out(request: dict) -> dict:
    identity, operation = request["identity"], request["operation"]
    with changed:
        figures["requests"] += operation not in ("figures", "drop")
        if identity in replies:
            return replies[identity][1]
        try:
            reply = {"result": OPERATIONS[operation](request)}
        except Refused as error:
            reply = {"error": str(error)}
        if operation in CHANGING:
            now = time.time()
            for old in [each for each, (when, _) in replies.items() if when < now - REMEMBERED]:
                del replies[old]
            replies[identity] = now, reply
            with open(f"{sys.argv[2]}.new", "wb") as file:
                pickle.dump((queues, replies), file)
            os.replace(f"{sys.argv[2]}.new", sys.argv[2])
            changed.notify_all()
        return reply


class Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        while (request := receive(self.rfile)) is not None:
            reply = carry_out(request)
            if figures["drop"] and request["operation"] not in ("figures", "drop", "wait"):
                if not figures["after"]:
                    figures["drop"] -= 1
                    return  # for tests: the reply is lost, and the connection with it
                figures["after"] -= 1
            self.wfile.write(frame(reply))


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address, daemon_threads, request_queue_size = True, True, 128

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # a client went away


if __name__ == "__main__":
    if os.path.exists(sys.argv[2]):
        with open(sys.argv[2], "rb") as file:
            state = pickle.load(file)
        queues.update(state[0])
        replies.update(state[1])
    with Server(("127.0.0.1", int(sys.argv[1])), Handler) as server:
        sys.stdout.write(f"{server.server_address[1]}\n")
        sys.stdout.flush()
        server.serve_forever()
