// Goes with the server's own page through what a viewer meets: a stream that is not there yet, that starts, that is
// cut and comes back. Prints what it saw as one line of JSON; a step that does not come to its end is an error.
//
//   node page.mjs PAGE_URL RTSP_URL [--screenshot FILE] [--user NAME --password WORD]

import { parseArgs } from "node:util";
import { launch, pictures, probed, seen, waitForPictures } from "./browser.mjs";
import { figures } from "./figures.mjs";
import { publish } from "./publish.mjs";

const LIMIT_MS = 30_000;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    screenshot: { type: "string" },
    user: { type: "string" },
    password: { type: "string", default: "" },
  },
});
const [pageUrl, rtspUrl] = positionals;

const messageOf = (page) => page.evaluate(() => document.getElementById("message").textContent);

// How long after `since` the first picture that was taken later was on the screen.
async function shownAfter(page, since) {
  const taken = ([moment]) => window.probe.pictures.find(([, , told]) => told !== null && told >= moment);
  const shown = await page.waitForFunction(taken, [since], { timeout: LIMIT_MS, polling: 50 });
  const [, wall] = await shown.jsonValue();
  return wall - since;
}

const browser = await launch();
let camera = null;
try {
  const options = values.user ? { httpCredentials: { username: values.user, password: values.password } } : {};
  const { page, faults } = await probed(browser, options);
  const saw = {};

  await page.goto(pageUrl);
  await page.waitForFunction(() => document.getElementById("message").textContent !== "", null, { timeout: LIMIT_MS });
  saw.absent = await messageOf(page);

  camera = publish({ url: rtspUrl });
  saw.started = await shownAfter(page, Date.now());
  await waitForPictures(page, (await pictures(page)) + 50, LIMIT_MS);
  saw.playing = await messageOf(page);
  saw.video = await page.evaluate(() => {
    const { controls, muted, paused, playsInline } = document.querySelector("video");
    return { controls, muted, paused, playsInline };
  });

  await page.keyboard.press("l");
  saw.readout = await page.evaluate(() => {
    const shown = document.getElementById("latency");
    return shown && !shown.hidden ? shown.textContent : "";
  });
  if (values.screenshot) await page.screenshot({ path: values.screenshot });

  camera.stop();
  await camera.ended;
  await page.waitForTimeout(1000);
  camera = publish({ url: rtspUrl });
  saw.again = await shownAfter(page, Date.now());

  console.log(JSON.stringify({ ...saw, ...figures(await seen(page), 0), faults }));
} finally {
  if (camera) camera.stop();
  await browser.close();
}
