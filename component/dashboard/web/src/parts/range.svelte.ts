/** How far back graphs look. Kept from place to place: who looks an hour back does so for several things. */

export const RANGES = [
  { label: "5 min", ms: 5 * 60_000 },
  { label: "15 min", ms: 15 * 60_000 },
  { label: "1 h", ms: 60 * 60_000 },
];

export const range = $state({ ms: 5 * 60_000 });
