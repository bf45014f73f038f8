// A clock burnt into the picture that a program reads back: the lowest 32 bits of the milliseconds since 1970 and a
// checksum, as two rows of twenty black or white cells at the top of the picture, the highest bit first. The cells
// are whole macroblocks, so that they survive any encoder, and a frame is drawn at one moment, so that no Gray code
// is needed. Runs in Node and in a page.

export const CELL = 32;
export const COLUMNS = 20;
export const ROWS = 2;
const TIME_BITS = 32;
const CHECK_BITS = 8;

const BLACK = 16;
const WHITE = 235;

// CRC-8, polynomial x^8 + x^2 + x + 1, over the four bytes; not zero for zero, so that a black picture is no time.
export function checksum(low32) {
  let crc = 0xff;
  for (let shift = 24; shift >= 0; shift -= 8) {
    crc ^= (low32 >>> shift) & 0xff;
    for (let bit = 0; bit < 8; bit += 1) crc = crc & 0x80 ? ((crc << 1) ^ 0x07) & 0xff : crc << 1;
  }
  return crc;
}

// The cells of a time, as booleans: true is white.
export function cellsOf(milliseconds) {
  const low32 = milliseconds % 2 ** TIME_BITS >>> 0;
  const check = checksum(low32);
  const cells = [];
  for (let bit = TIME_BITS - 1; bit >= 0; bit -= 1) cells.push((low32 >>> bit) % 2 === 1);
  for (let bit = CHECK_BITS - 1; bit >= 0; bit -= 1) cells.push((check >>> bit) % 2 === 1);
  return cells;
}

// The time nearest to `near` (milliseconds since 1970) that these cells show, or null if they show none.
export function timeOf(cells, near) {
  const number = (from, bits) => cells.slice(from, from + bits).reduce((sum, cell) => sum * 2 + (cell ? 1 : 0), 0);
  const low32 = number(0, TIME_BITS);
  if (number(TIME_BITS, CHECK_BITS) !== checksum(low32)) return null;
  const span = 2 ** TIME_BITS;
  return low32 + Math.round((near - low32) / span) * span;
}

// Draws the cells into a plane of luma.
export function drawClock(luma, width, milliseconds) {
  cellsOf(milliseconds).forEach((white, index) => {
    const x = (index % COLUMNS) * CELL;
    const y = Math.floor(index / COLUMNS) * CELL;
    for (let row = y; row < y + CELL; row += 1) {
      luma.fill(white ? WHITE : BLACK, row * width + x, row * width + x + CELL);
    }
  });
}

// In a page: reads what the video element shows. One small canvas, a few kilobytes per read.
export class ClockReader {
  static SAMPLES = 8; // across a cell

  constructor(video) {
    this.video = video;
    const canvas = document.createElement("canvas");
    canvas.width = COLUMNS * ClockReader.SAMPLES;
    canvas.height = ROWS * ClockReader.SAMPLES;
    this.context = canvas.getContext("2d", { willReadFrequently: true });
  }

  // `scale` is the width of the picture over the width that was drawn, when something on the way has scaled it.
  read(now = Date.now(), scale = 1) {
    const { width, height } = this.context.canvas;
    this.context.drawImage(this.video, 0, 0, COLUMNS * CELL * scale, ROWS * CELL * scale, 0, 0, width, height);
    const { data } = this.context.getImageData(0, 0, width, height);
    const cells = [];
    for (let index = 0; index < COLUMNS * ROWS; index += 1) {
      const x = (index % COLUMNS) * ClockReader.SAMPLES;
      const y = Math.floor(index / COLUMNS) * ClockReader.SAMPLES;
      let sum = 0;
      for (const [dx, dy] of [[3, 3], [4, 3], [3, 4], [4, 4]]) sum += data[((y + dy) * width + x + dx) * 4 + 1];
      cells.push(sum / 4 > 127);
    }
    return timeOf(cells, now);
  }
}
