// From what the probe saw to figures: milliseconds throughout.

// No picture for so long is a stall to a viewer.
export const STALL_MS = 500;

export function quantile(values, share) {
  if (values.length === 0) return null;
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
}

// The first second belongs to the start of playback: its latency is in the first picture's time.
export function figures(probe, askedAt, settleMs = 1000) {
  const { pictures, dry, sizes } = probe;
  if (pictures.length === 0) return { pictures: 0 };
  const first = pictures[0][0];
  const settled = pictures.filter(([at]) => at - first >= settleMs);
  const latencies = settled.filter(([, , told]) => told !== null).map(([, wall, told]) => wall - told);
  const gaps = pictures.slice(1).map(([at], index) => at - pictures[index][0]);
  const backwards = pictures.slice(1).filter(([, , told], index) => {
    const before = pictures[index][2];
    return told !== null && before !== null && told < before;
  });
  return {
    pictures: pictures.length,
    unread: settled.length - latencies.length,
    distinct: new Set(pictures.map(([, , told]) => told)).size,
    backwards: backwards.length,
    first: Math.round(first - askedAt),
    seconds: Number(((pictures.at(-1)[0] - first) / 1000).toFixed(1)),
    latency: {
      median: quantile(latencies, 0.5),
      p95: quantile(latencies, 0.95),
      min: quantile(latencies, 0),
      max: quantile(latencies, 1),
    },
    stalls: gaps.filter((gap) => gap > STALL_MS).length,
    longestGap: Math.round(Math.max(0, ...gaps)),
    dry: dry.length,
    sizes: sizes.map(([, size]) => size),
  };
}
