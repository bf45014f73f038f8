// Low-Latency HLS as a viewer has it: the age of what is on the screen, stalls, and how long the first picture takes,
// for several servers in the same run. Writes Markdown. README.md beside it says how to run it and how to read it.

import { spawn } from "node:child_process";
import { mkdtemp, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import os from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import { launch, openBuiltIn, openOwn, probed, seen, site } from "../../tests/browser/browser.mjs";
import { STALL_MS, figures, quantile } from "../../tests/browser/figures.mjs";
import { publish } from "../../tests/browser/publish.mjs";

const { values: options } = parseArgs({
  options: {
    targets: { type: "string" }, // name=program, comma between them
    parts: { type: "string", default: "200,100" }, // ms
    seconds: { type: "string", default: "300" },
    joins: { type: "string", default: "10" },
    cuts: { type: "string", default: "3" },
    out: { type: "string" },
    screenshots: { type: "string" }, // a directory
  },
});
const SECONDS = Number(options.seconds);
const JOINS = Number(options.joins);
const CUTS = Number(options.cuts);
const KINDS = { own: "hls.js", builtin: "built-in page" };
// Longer than a GOP: MediaMTX closes a muxer that somebody waits for.
const CLOSE_AFTER_MS = 6000;
const JOIN_LIMIT_MS = 20_000;

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

function freePort() {
  return new Promise((resolve) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

// One server with cameras that publish to it: { path: what publish() takes }.
async function serve(target, { partMs, warm }, cameras) {
  const [rtsp, http] = [await freePort(), await freePort()];
  const dir = await mkdtemp(path.join(os.tmpdir(), "browser-perf-"));
  const config = [
    `rtspAddress: 127.0.0.1:${rtsp}`, "rtspTransports: [tcp]", "logLevel: warn",
    "hls: yes", `hlsAddress: 127.0.0.1:${http}`, "hlsVariant: lowLatency", `hlsPartDuration: ${partMs}ms`,
    "hlsSegmentDuration: 1s", `hlsAlwaysRemux: ${warm ? "yes" : "no"}`, `hlsMuxerCloseAfter: ${CLOSE_AFTER_MS}ms`,
    "rtmp: no", "webrtc: no", "srt: no", "moq: no", "paths:", "  all_others:", "",
  ].join("\n");
  await writeFile(path.join(dir, "config.yml"), config);
  const child = spawn(target.program, [path.join(dir, "config.yml")], { cwd: dir, stdio: ["ignore", "inherit", "inherit"] });
  await sleep(1500);
  const running = Object.entries(cameras).map(([name, camera]) => [
    name, publish({ ...camera, url: `rtsp://127.0.0.1:${rtsp}/${name}` }),
  ]);
  await sleep(warm ? 8000 : 4000);
  return {
    rtsp: (name) => `rtsp://127.0.0.1:${rtsp}/${name}`,
    cameras: Object.fromEntries(running),
    address: (kind, name) => `http://127.0.0.1:${http}/${name}/${kind === "own" ? "index.m3u8" : ""}`,
    async stop() {
      for (const [, camera] of running) camera.stop();
      await Promise.all(running.map(([, camera]) => camera.ended));
      child.kill("SIGTERM");
      await new Promise((resolve) => child.on("exit", resolve));
    },
  };
}

const targets = options.targets.split(",").map((target) => {
  const [name, program] = target.split("=");
  return { name, program: path.resolve(program) };
});
const browser = await launch();
const own = await site();
const lines = [];
const say = (line = "") => {
  lines.push(line);
  console.log(line);
};

const open = (page, kind, address) => (kind === "own"
  ? openOwn(page, own.url, address, { limitMs: JOIN_LIMIT_MS })
  : openBuiltIn(page, address, { limitMs: JOIN_LIMIT_MS }));

async function watch(kind, address, seconds, screenshot) {
  const { context, page } = await probed(browser);
  try {
    const askedAt = await open(page, kind, address);
    await page.waitForTimeout(seconds * 1000);
    if (screenshot) await page.screenshot({ path: screenshot });
    return figures(await seen(page), askedAt);
  } catch (error) {
    console.error(`${address}: ${error.message.split("\n")[0]}`);
    return null;
  } finally {
    await context.close();
  }
}

async function steady() {
  say(`## ${SECONDS} s of watching, H.264 (1 s GOP, 1.5 Mbps) and AAC`);
  say();
  say("| parts | player | server | latency median | p95 | max | stalls | longest gap | first picture |");
  say("|---|---|---|---|---|---|---|---|---|");
  for (const partMs of options.parts.split(",").map(Number)) {
    for (const kind of Object.keys(KINDS)) {
      for (const target of targets) {
        const server = await serve(target, { partMs, warm: true }, { cam: {} });
        const shot = options.screenshots && path.join(options.screenshots, `${target.name}-${kind}-${partMs}.png`);
        const got = await watch(kind, server.address(kind, "cam"), SECONDS, shot);
        await server.stop();
        const { latency, stalls, longestGap, first } = got ?? { latency: {} };
        say(`| ${partMs} ms | ${KINDS[kind]} | ${target.name} | ${latency.median} ms | ${latency.p95} | ${latency.max} | ` +
          `${stalls} | ${longestGap} | ${first} |`);
      }
    }
  }
  say();
}

// The targets take turns, so that what else the machine does meets them alike.
async function joins() {
  say(`## First picture, ${JOINS} joins, parts of 200 ms`);
  say();
  say("| muxer | player | server | median | lowest | highest | joins with a stall | without a picture |");
  say("|---|---|---|---|---|---|---|---|");
  for (const [label, warm, gop] of [["warm", true, 25], ["started by the request, 1 s GOP", false, 25],
    ["started by the request, 4 s GOP", false, 100]]) {
    for (const kind of Object.keys(KINDS)) {
      const got = new Map(targets.map(({ name }) => [name, []]));
      const servers = [];
      for (const target of targets) servers.push(await serve(target, { partMs: 200, warm }, { cam: { gop } }));
      for (let join = 0; join < JOINS; join += 1) {
        for (const [index, target] of targets.entries()) {
          got.get(target.name).push(await watch(kind, servers[index].address(kind, "cam"), 3));
        }
        // Until the muxers are closed again.
        if (!warm) await sleep(CLOSE_AFTER_MS + 3500);
      }
      for (const server of servers) await server.stop();
      for (const [name, all] of got) {
        const seenOnes = all.filter((one) => one !== null);
        const firsts = seenOnes.map((one) => one.first);
        say(`| ${label} | ${KINDS[kind]} | ${name} | ${quantile(firsts, 0.5)} ms | ${quantile(firsts, 0)} | ` +
          `${quantile(firsts, 1)} | ${seenOnes.filter((one) => one.stalls > 0).length} | ${all.length - seenOnes.length} |`);
      }
    }
  }
  say();
}

// Milliseconds from `since` to the first picture on the screen that was taken later.
async function shownAfter(page, since) {
  const shown = await page.waitForFunction(
    (moment) => window.probe.pictures.find(([, , told]) => told !== null && told >= moment),
    since, { timeout: 60_000, polling: 50 },
  );
  const [, wall] = await shown.jsonValue();
  return wall - since;
}

async function cuts() {
  say(`## The camera drops, comes back after 1 s and has jumped, ${CUTS} times each, built-in page, parts of 200 ms`);
  say();
  say("From its return (or the jump) to a new picture on the screen; the worst gap between two pictures of the visit.");
  say();
  say("| what | server | new picture median | worst | longest gap |");
  say("|---|---|---|---|---|");
  const before = { jumpAfter: 10 };
  for (const [label, first, then] of [["drops", {}, {}], ["comes back larger", {}, { width: 1280, height: 720 }],
    ["clock jumps by an hour", before, null]]) {
    for (const target of targets) {
      const back = [];
      let gap = 0;
      for (let cut = 0; cut < CUTS; cut += 1) {
        const server = await serve(target, { partMs: 200, warm: true }, then ? { cam: first } : {});
        const { context, page } = await probed(browser);
        let second = null;
        try {
          if (!then) second = publish({ ...first, url: server.rtsp("cam") });
          const began = Date.now();
          await openBuiltIn(page, server.address("builtin", "cam"), { limitMs: JOIN_LIMIT_MS });
          if (then) {
            await page.waitForTimeout(3000);
            server.cameras.cam.stop();
            await server.cameras.cam.ended;
            await page.waitForTimeout(1000);
            const returned = Date.now();
            second = publish({ ...then, url: server.rtsp("cam") });
            back.push(await shownAfter(page, returned));
          } else {
            back.push(await shownAfter(page, began + first.jumpAfter * 1000 + 500));
          }
          await page.waitForTimeout(3000);
          gap = Math.max(gap, figures(await seen(page), 0).longestGap);
        } catch (error) {
          console.error(`${label}, ${target.name}: ${error.message.split("\n")[0]}`);
          back.push(Infinity);
        } finally {
          await context.close();
          if (second) {
            second.stop();
            await second.ended;
          }
          await server.stop();
        }
      }
      say(`| ${label} | ${target.name} | ${quantile(back, 0.5)} ms | ${quantile(back, 1)} | ${gap} |`);
    }
  }
  say();
}

say(`# Low-Latency HLS in Chromium ${browser.version()}`);
say();
say(`${os.cpus().length} cores, load ${os.loadavg()[0].toFixed(1)} at the start, everything on loopback. Latency: from the ` +
  `moment a picture was drawn to the moment the browser shows it, encoder included. Stall: ${STALL_MS} ms without a new picture.`);
say();
if (SECONDS > 0) await steady();
if (JOINS > 0) await joins();
if (CUTS > 0) await cuts();
await browser.close();
own.close();
if (options.out) await writeFile(options.out, `${lines.join("\n").trim()}\n`);
