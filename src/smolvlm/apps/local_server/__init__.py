"""The one local server of the applications: on 127.0.0.1, with a token in every address and a check of the Host header.

    def hello(request: Request) -> Reply:
        return Reply.json({"said": request.query.get("q", "")})

    with LocalServer({"/hello": hello}) as server:
        print(server.url)          # http://127.0.0.1:PORT/TOKEN/
        server.serve_forever()

A page in a browser can send requests to any program of the machine: without the token nothing is answered, and a page that
points a name of its own at 127.0.0.1 is known by its Host header. Nothing but GET and HEAD is answered.
"""

from smolvlm.apps.local_server.replies import Reply, Request
from smolvlm.apps.local_server.server import LocalServer

__all__ = ["LocalServer", "Reply", "Request"]
