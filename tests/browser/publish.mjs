// Publishes a camera whose picture tells the time (clock.mjs): H.264 without B-frames, as IP cameras send it, and
// AAC. Runs until it is killed or the server goes.
//
//   node publish.mjs rtsp://127.0.0.1:8554/cam [--fps 25] [--gop 25] [--kbps 1500] [--no-audio] [--size 640x360] [--jump-after 10]

import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { drawClock } from "./clock.mjs";

const SEGMENTS = [0b1110111, 0b0100100, 0b1011101, 0b1101101, 0b0101110, 0b1101011, 0b1111011, 0b0100101, 0b1111111,
  0b1101111]; // bit 0 top, 1 upper left, 2 upper right, 3 middle, 4 lower left, 5 lower right, 6 bottom

// A picture in I420: the cells, the time for people, and something that moves.
export class Picture {
  constructor(width, height) {
    Object.assign(this, { width, height });
    this.bytes = Buffer.alloc((width * height * 3) / 2, 128);
    this.luma = this.bytes.subarray(0, width * height);
    this.ground = Buffer.alloc(width * height);
    for (let y = 0; y < height; y += 1) {
      for (let x = 0; x < width; x += 1) this.ground[y * width + x] = 50 + ((x + y) % 64) + ((y * 60) / height);
    }
    const quarter = (width * height) / 4;
    for (let index = 0; index < quarter; index += 1) {
      this.bytes[width * height + index] = 108 + (index % (width / 2)) / 16;
      this.bytes[width * height + quarter + index] = 118 + Math.floor(index / (width / 2)) / 8;
    }
  }

  fill(value, x, y, width, height) {
    for (let row = y; row < y + height; row += 1) {
      this.luma.fill(value, row * this.width + x, row * this.width + x + width);
    }
  }

  digit(value, x, y) {
    const bars = [[3, 0, 18, 4], [0, 3, 4, 20], [20, 3, 4, 20], [3, 22, 18, 4], [0, 25, 4, 20], [20, 25, 4, 20],
      [3, 44, 18, 4]];
    bars.forEach(([dx, dy, width, height], bar) => {
      if (SEGMENTS[value] & (1 << bar)) this.fill(235, x + dx, y + dy, width, height);
    });
  }

  draw(milliseconds) {
    this.ground.copy(this.luma);
    drawClock(this.luma, this.width, milliseconds);
    let x = 100;
    const y = Math.floor(this.height / 2) - 24;
    this.fill(16, x - 10, y - 12, 430, 72);
    for (const letter of new Date(milliseconds).toISOString().slice(11, 23)) {
      if (letter >= "0" && letter <= "9") this.digit(Number(letter), x, y);
      else this.fill(235, x + 10, y + (letter === "." ? 42 : 18), 5, 5);
      x += letter >= "0" && letter <= "9" ? 36 : 28;
    }
    const box = 40;
    const sweep = Math.floor(((milliseconds % 4000) / 4000) * (this.width - box));
    this.fill(200, sweep, this.height - 2 * box, box, box);
    return this.bytes;
  }
}

// `jumpAfter`: seconds after which all timestamps are an hour ahead, as those of a camera whose clock was set.
export function ffmpegArguments({ url, width, height, fps, gop, kbps, audio, jumpAfter }) {
  const sound = audio ? ["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000"] : [];
  const encodeSound = audio ? ["-c:a", "aac", "-b:a", "64k", "-ac", "1"] : ["-an"];
  const late = `TS+gte(TS*TB\\,${jumpAfter})*3600/TB`;
  const jump = jumpAfter ? ["-bsf:v", `setts=ts=${late}`, "-bsf:a", `setts=ts=${late}`] : [];
  return [
    "-hide_banner", "-loglevel", "error", "-nostats",
    "-probesize", "32", "-analyzeduration", "0", "-fflags", "nobuffer",
    "-f", "rawvideo", "-pix_fmt", "yuv420p", "-video_size", `${width}x${height}`, "-framerate", `${fps}`, "-i", "pipe:0",
    ...sound,
    "-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-threads", "1", "-pix_fmt", "yuv420p",
    "-g", `${gop}`, "-keyint_min", `${gop}`, "-sc_threshold", "0",
    "-b:v", `${kbps}k`, "-maxrate", `${kbps}k`, "-bufsize", `${kbps}k`,
    ...encodeSound, ...jump,
    "-flush_packets", "1", "-muxdelay", "0", "-f", "rtsp", "-rtsp_transport", "tcp", url,
  ];
}

// One picture per tick, never one more or less: what came late is made up for, as the encoder counts pictures.
export function publish({ url, width = 640, height = 360, fps = 25, gop = 25, kbps = 1500, audio = true, jumpAfter = 0 }) {
  const encoder = spawn("ffmpeg", ffmpegArguments({ url, width, height, fps, gop, kbps, audio, jumpAfter }), {
    stdio: ["pipe", "ignore", "inherit"],
  });
  encoder.stdin.on("error", () => {}); // its end is told by its exit
  const picture = new Picture(width, height);
  const began = performance.now();
  let sent = 0;
  let timer = null;
  const tick = () => {
    while (sent <= ((performance.now() - began) * fps) / 1000) {
      // A server that does not take it makes the encoder stand still: its backlog is the camera's loss.
      if (encoder.stdin.writableLength < 30 * picture.bytes.length) encoder.stdin.write(Buffer.from(picture.draw(Date.now())));
      sent += 1;
    }
    timer = setTimeout(tick, began + (sent * 1000) / fps - performance.now());
  };
  tick();
  const ended = new Promise((resolve) => encoder.on("exit", (code, signal) => {
    clearTimeout(timer);
    resolve({ code, signal });
  }));
  // An encoder that waits for a server does not hear the first word.
  const stop = () => {
    encoder.stdin.destroy();
    encoder.kill("SIGTERM");
    setTimeout(() => encoder.kill("SIGKILL"), 2000).unref();
  };
  return { ended, stop };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      fps: { type: "string", default: "25" },
      gop: { type: "string", default: "25" },
      kbps: { type: "string", default: "1500" },
      size: { type: "string", default: "640x360" },
      "jump-after": { type: "string", default: "0" },
      "no-audio": { type: "boolean", default: false },
    },
  });
  const [width, height] = values.size.split("x").map(Number);
  const camera = publish({
    url: positionals[0], width, height, audio: !values["no-audio"],
    fps: Number(values.fps), gop: Number(values.gop), kbps: Number(values.kbps),
    jumpAfter: Number(values["jump-after"]),
  });
  for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => camera.stop());
  const { code, signal } = await camera.ended;
  process.exitCode = code ?? (signal ? 0 : 1);
}
