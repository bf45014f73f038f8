// Chromium without a window, and the two kinds of page that it watches a stream in: the server's own, and one of ours
// on another origin with nothing but hls.js. CORECAST_BROWSER names another Chromium, CORECAST_NODE_MODULES the
// directory into which `install` put playwright-core.

import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import path from "node:path";
import { fileURLToPath } from "node:url";

const here = path.dirname(fileURLToPath(import.meta.url));
const root = path.resolve(here, "../..");

function playwright() {
  const target = process.env.CARGO_TARGET_DIR || path.join(root, "target");
  const modules = process.env.CORECAST_NODE_MODULES || path.join(target, "browser");
  return createRequire(path.join(modules, "package.json"))("playwright-core");
}

export function launch() {
  return playwright().chromium.launch({
    executablePath: process.env.CORECAST_BROWSER || "/usr/bin/chromium",
    headless: true,
    // A container has no user namespaces for the sandbox and a small /dev/shm. Autoplay is as for any user.
    args: ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--mute-audio"],
  });
}

// The probe as a plain script that runs before any of the page's.
async function probeScript() {
  const sources = await Promise.all(["clock.mjs", "probe.mjs"].map((name) => readFile(path.join(here, name), "utf8")));
  return `{\n${sources.join("\n").replace(/^export /gm, "")}\n}`;
}

const SITE = {
  "/player.html": ["text/html; charset=utf-8", path.join(here, "player.html")],
  "/hls.min.js": ["text/javascript", process.env.CORECAST_HLS_JS || path.join(root, "src/shard/web/pages/hls.min.js")],
};

// Serves our own page; `close()` it.
export async function site() {
  const server = createServer(async (request, response) => {
    const known = SITE[new URL(request.url, "http://localhost").pathname];
    if (!known) return response.writeHead(404).end();
    return response.writeHead(200, { "Content-Type": known[0] }).end(await readFile(known[1]));
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  server.unref();
  return { url: `http://localhost:${server.address().port}`, close: () => server.close() };
}

// A page with the probe in it; it and all it holds go with `context.close()`.
export async function probed(browser, options = {}) {
  const context = await browser.newContext({ viewport: { width: 960, height: 540 }, ...options });
  const page = await context.newPage();
  const faults = [];
  page.on("pageerror", (error) => faults.push(`error on the page: ${error.message}`));
  await page.addInitScript(await probeScript());
  return { context, page, faults };
}

export const pictures = (page) => page.evaluate(() => window.probe.pictures.length);

export async function waitForPictures(page, count, limitMs) {
  await page.waitForFunction((wanted) => window.probe.pictures.length >= wanted, count, { timeout: limitMs, polling: 50 });
}

// Opens our own page at the playlist. The clock of the first picture starts when hls.js is told the address.
export async function openOwn(page, siteUrl, playlist, { config = {}, limitMs = 30_000 } = {}) {
  const query = new URLSearchParams({ url: playlist, config: JSON.stringify(config), wait: "1" });
  await page.goto(`${siteUrl}/player.html?${query}`);
  await page.evaluate(() => window.play());
  await waitForPictures(page, 1, limitMs);
  return page.evaluate(() => window.askedAt);
}

// Opens the server's page. The clock of the first picture starts with the request of the page.
export async function openBuiltIn(page, url, { limitMs = 30_000 } = {}) {
  await page.goto(url, { waitUntil: "commit" });
  await waitForPictures(page, 1, limitMs);
  return 0;
}

export const seen = (page) => page.evaluate(() => window.probe);
