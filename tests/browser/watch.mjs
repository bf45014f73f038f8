// Watches one stream in Chromium and prints what it saw as one line of JSON.
//
//   node watch.mjs own|builtin URL [--seconds 10] [--screenshot FILE] [--user NAME --password WORD] [--config JSON]
//
// `own` takes the address of a playlist, `builtin` that of the server's page.

import { parseArgs } from "node:util";
import { launch, openBuiltIn, openOwn, probed, seen, site } from "./browser.mjs";
import { figures } from "./figures.mjs";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    seconds: { type: "string", default: "10" },
    screenshot: { type: "string" },
    user: { type: "string" },
    password: { type: "string", default: "" },
    config: { type: "string", default: "{}" },
  },
});
const [kind, url] = positionals;
const browser = await launch();
const own = await site();
try {
  const options = values.user ? { httpCredentials: { username: values.user, password: values.password } } : {};
  const { page, faults } = await probed(browser, options);
  const askedAt = kind === "own"
    ? await openOwn(page, own.url, url, { config: JSON.parse(values.config) })
    : await openBuiltIn(page, url);
  await page.waitForTimeout(Number(values.seconds) * 1000);
  if (values.screenshot) await page.screenshot({ path: values.screenshot });
  const more = kind === "own" ? await page.evaluate(() => window.faults) : [];
  console.log(JSON.stringify({ ...figures(await seen(page), askedAt), faults: [...faults, ...more] }));
} finally {
  await browser.close();
  own.close();
}
