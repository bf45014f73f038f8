#!/bin/bash
# Makes demo.rtpdump and demo.sdp, the demo camera's 10 s loop, and checks what it made.
# Needs ffmpeg with libx264 and libopus, python3, and the DejaVu fonts. Same tools, same bytes.
#
#   video  payload type 96, H.264 640x360, 25 fps, GOP 25, no B-frames, 250 frames: +900000 per loop
#   audio  payload type 97, Opus stereo, 20 ms per packet, 500 packets:              +480000 per loop
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

font=${FONT:-/usr/share/fonts/truetype/dejavu/DejaVuSansMono-Bold.ttf}
[ -f "$font" ] || { echo "make-demo: no font at $font (apt-get install fonts-dejavu-core, or set FONT)" >&2; exit 1; }

label="fontfile=$font:fontcolor=white:box=1:boxcolor=black@0.8:boxborderw=10"
ffmpeg -nostdin -loglevel error -y -f lavfi -i "testsrc=size=640x360:rate=25:duration=10" -vf "
  drawtext=$label:fontsize=44:x=(w-tw)/2:y=28:text='%{pts\\:hms}',
  drawtext=$label:fontsize=28:x=(w-tw)/2:y=h-64:text='corecast demo  frame %{eif\\:n\\:d\\:3}'" \
  -pix_fmt yuv420p -c:v libx264 -threads 1 -preset veryslow -profile:v main -b:v 135k -maxrate 300k -bufsize 300k \
  -x264-params "keyint=25:min-keyint=25:scenecut=0:bframes=0:repeat-headers=1:aud=0:slices=1:open-gop=0" \
  -flags:v +bitexact -fflags +bitexact -f h264 "$work/video.h264"

# 440 Hz and 445 Hz close a whole number of waves in 10 s: the loop has no click of its own.
ffmpeg -nostdin -loglevel error -y -f lavfi \
  -i "aevalsrc=exprs=0.02*sin(2*PI*440*t)|0.02*sin(2*PI*445*t):s=48000:d=10.2" \
  -c:a libopus -b:a 24k -vbr off -frame_duration 20 -application audio -flags:a +bitexact -fflags +bitexact \
  -f ogg "$work/audio.ogg"

python3 - "$work/video.h264" "$work/audio.ogg" "$here/demo.rtpdump" "$here/demo.sdp" <<'PY'
import base64, struct, sys
video_in, audio_in, dump_out, sdp_out = sys.argv[1:]

FRAMES, GOP, FRAME_90K, PACKETS, PACKET_48K, PAYLOAD_MAX, SIZE_MAX = 250, 25, 3600, 500, 960, 1200, 250_000
VIDEO = dict(pt=96, ssrc=0xC0DECA57, rate=90_000)
AUDIO = dict(pt=97, ssrc=0xC0DECA58, rate=48_000)

def nal_units(annexb):
    at = annexb.find(b"\0\0\1")
    while at >= 0:
        end = annexb.find(b"\0\0\1", at + 3)
        yield (annexb[at + 3:end] if end >= 0 else annexb[at + 3:]).rstrip(b"\0")
        at = end

def access_units(annexb):
    unit = []
    for nal in nal_units(annexb):
        kind = nal[0] & 31
        if kind in (7, 8):
            unit.append(nal)
        elif kind in (1, 5):            # one slice per picture, so a slice ends its access unit
            assert nal[1] & 0x80, "second slice of a picture"
            yield unit + [nal]
            unit = []
        else:
            assert kind in (6, 9), f"NAL type {kind}"   # SEI and delimiters are left out

def ogg_packets(data):
    at, packet = 0, b""
    while at < len(data):
        assert data[at:at + 4] == b"OggS"
        lacing = data[at + 27:at + 27 + data[at + 26]]
        at += 27 + len(lacing)
        for size in lacing:
            packet += data[at:at + size]
            at += size
            if size < 255:
                yield packet
                packet = b""

def payloads(nal):
    if len(nal) <= PAYLOAD_MAX:
        return [nal]
    step, body = PAYLOAD_MAX - 2, nal[1:]
    cuts = range(0, len(body), step)
    return [bytes([nal[0] & 0xE0 | 28, (0x80 if cut == 0 else 0) | (0x40 if cut + step >= len(body) else 0) | nal[0] & 31])
            + body[cut:cut + step] for cut in cuts]

def rtp(track, sequence, timestamp, marker, payload):
    return struct.pack(">BBHII", 0x80, marker << 7 | track["pt"], sequence, timestamp, track["ssrc"]) + payload

units = list(access_units(open(video_in, "rb").read()))
opus = list(ogg_packets(open(audio_in, "rb").read()))[2:2 + PACKETS]
records, sequence = [], 0
for n, unit in enumerate(units):
    parts = [p for nal in unit for p in payloads(nal)]
    for i, part in enumerate(parts):
        stamp = n * FRAME_90K
        records.append((stamp * 1000 // VIDEO["rate"], rtp(VIDEO, sequence, stamp, i == len(parts) - 1, part)))
        sequence += 1
for n, packet in enumerate(opus):
    stamp = n * PACKET_48K
    records.append((stamp * 1000 // AUDIO["rate"], rtp(AUDIO, n, stamp, n == 0, packet)))
records.sort(key=lambda r: r[0])        # stable: video before audio of the same instant
with open(dump_out, "wb") as f:
    f.write(b"#!rtpplay1.0 127.0.0.1/5000\n" + struct.pack(">IIIHH", 0, 0, 0x7F000001, 5000, 0))
    for ms, packet in records:
        f.write(struct.pack(">HHI", len(packet) + 8, len(packet), ms) + packet)
sps = next(nal for nal in units[0] if nal[0] & 31 == 7)
pps = next(nal for nal in units[0] if nal[0] & 31 == 8)
sprop = ",".join(base64.b64encode(nal).decode() for nal in (sps, pps))
with open(sdp_out, "w", newline="") as f:
    f.write("\r\n".join([
        "v=0", "o=- 0 0 IN IP4 127.0.0.1", "s=Corecast demo", "c=IN IP4 0.0.0.0", "t=0 0",
        "m=video 0 RTP/AVP 96", "a=control:trackID=0", "a=rtpmap:96 H264/90000",
        f"a=fmtp:96 packetization-mode=1; profile-level-id={sps[1:4].hex().upper()}; sprop-parameter-sets={sprop}",
        "m=audio 0 RTP/AVP 97", "a=control:trackID=1", "a=rtpmap:97 opus/48000/2", "a=fmtp:97 sprop-stereo=1", ""]))

# ---- the checker: reads the file back, trusting nothing above
data = open(dump_out, "rb").read()
assert len(data) <= SIZE_MAX, f"{len(data)} bytes"
line, rest = data.split(b"\n", 1)
assert line == b"#!rtpplay1.0 127.0.0.1/5000"
at, last_ms, tracks = 16, 0, {96: [], 97: []}
while at < len(rest):
    length, plen, ms = struct.unpack(">HHI", rest[at:at + 8])
    packet = rest[at + 8:at + length]
    assert length == plen + 8 == len(packet) + 8 and ms >= last_ms
    v, m_pt, seq, stamp, ssrc = struct.unpack(">BBHII", packet[:12])
    assert v == 0x80
    tracks[m_pt & 127].append((ms, m_pt >> 7, seq, stamp, ssrc, packet[12:]))
    at, last_ms = at + length, ms
assert at == len(rest)
for pt, rate in ((96, 90_000), (97, 48_000)):
    assert [p[2] for p in tracks[pt]] == list(range(len(tracks[pt]))), "sequence"
    assert len({p[4] for p in tracks[pt]}) == 1, "one SSRC per track"
    assert all(p[0] == p[3] * 1000 // rate for p in tracks[pt]), "record time follows the timestamp"
    assert all(0 < len(p[5]) <= PAYLOAD_MAX for p in tracks[pt]), "payload size"
assert [p[3] for p in tracks[97]] == [n * PACKET_48K for n in range(PACKETS)]
# The table of contents byte of a 20 ms packet, RFC 6716 §3.1: SILK 1 5 9, hybrid 13 15, CELT 19 23 27 31; one frame
assert all(p[5][0] >> 3 in (1, 5, 9, 13, 15, 19, 23, 27, 31) and p[5][0] & 3 == 0 for p in tracks[97])
frames = {}
for p in tracks[96]:
    frames.setdefault(p[3], []).append(p)
assert sorted(frames) == [n * FRAME_90K for n in range(FRAMES)]
for n, stamp in enumerate(sorted(frames)):
    packets = frames[stamp]
    assert [p[1] for p in packets] == [0] * (len(packets) - 1) + [1], "marker ends the frame, and only there"
    kinds, open_fu = [], None
    for p in packets:
        body = p[5]
        if body[0] & 31 != 28:
            assert open_fu is None
            kinds.append(body[0] & 31)
        else:
            start, end, kind = body[1] >> 7, body[1] >> 6 & 1, body[1] & 31
            assert (open_fu is None) == bool(start) and not (start and end)
            if start:
                kinds.append(kind)
            open_fu = None if end else kind
    assert open_fu is None
    assert kinds == ([7, 8, 5] if n % GOP == 0 else [1]), f"frame {n}: {kinds}"
print(f"{dump_out}: {len(data)} bytes, {len(tracks[96])} video packets in {FRAMES} frames, {len(tracks[97])} audio packets, 10.000 s")
print(open(sdp_out).read(), end="")
PY
