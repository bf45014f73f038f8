// Runs in a page that plays a stream with a burnt clock, whoever wrote the page: notes each picture that the video
// element shows, when it was shown and what time it tells, and each time the player ran dry. `browser.mjs` puts it,
// behind clock.mjs, in front of the page's own scripts; what it saw is in `window.probe`.

/* global ClockReader */

const PICTURES_MAX = 60_000; // 40 minutes at 25 a second

window.probe = {
  pictures: [], // [shown at (ms since the page began), shown at (ms since 1970), told time or null, media time (s)]
  dry: [], // when the player waited for media after its first picture (ms since the page began)
  size: null,
  sizes: [],
};

function watch(video) {
  const reader = new ClockReader(video);
  const note = (now, frame) => {
    const wall = Date.now();
    const told = reader.read(wall);
    const size = `${frame.width}x${frame.height}`;
    if (window.probe.size !== size) window.probe.sizes.push([performance.now(), size]);
    window.probe.size = size;
    if (window.probe.pictures.length < PICTURES_MAX) {
      window.probe.pictures.push([performance.now(), wall, told, frame.mediaTime]);
    }
    video.requestVideoFrameCallback(note);
  };
  video.requestVideoFrameCallback(note);
  video.addEventListener("waiting", () => {
    if (window.probe.pictures.length > 0 && !video.seeking) window.probe.dry.push(performance.now());
  });
}

const found = new MutationObserver(() => {
  const video = document.querySelector("video");
  if (!video) return;
  found.disconnect();
  watch(video);
});
found.observe(document, { childList: true, subtree: true });
