"""A camera by gst-rtsp-server: serves one MP4 file under each of the names given, from its beginning for each client.

Usage: gst_server.py FILE NAME...   Prints `listening PORT`, then a line for each PLAY, TEARDOWN and closed connection.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402


def say(*words):
    print(*words, flush=True)


def connected(_server, client):
    say("connected")
    client.connect("play-request", lambda _client, _context: say("play"))
    client.connect("teardown-request", lambda _client, _context: say("teardown"))
    client.connect("closed", lambda _client: say("closed"))


Gst.init(None)
server = GstRtspServer.RTSPServer()
server.set_address("127.0.0.1")
server.set_service("0")
server.connect("client-connected", connected)
for name in sys.argv[2:]:
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(f"( filesrc location={sys.argv[1]} ! qtdemux ! rtph264pay name=pay0 pt=96 config-interval=-1 )")
    server.get_mount_points().add_factory(f"/{name}", factory)
server.attach(None)
say("listening", server.get_bound_port())
GLib.MainLoop().run()
