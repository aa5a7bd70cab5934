/**
 * Whether anybody looks. A browser opens at most six connections to one address over HTTP/1.1, and a stream holds one
 * for as long as it lives: tabs in the background give theirs back, or the seventh stream would stop every tab.
 */

/** Looking something up in another tab and coming back should cost no new stream. */
const HIDDEN_MS = 5_000;

/** Resolves once the page is seen, at once if it is, or when the signal aborts. */
export function seen(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (!document.hidden || signal.aborted) return resolve();
    const look = () => {
      if (document.hidden && !signal.aborted) return;
      document.removeEventListener("visibilitychange", look);
      signal.removeEventListener("abort", look);
      resolve();
    };
    document.addEventListener("visibilitychange", look);
    signal.addEventListener("abort", look);
  });
}

/** Does something with a signal that also aborts once the page has been hidden for a while. */
export async function whileSeen(signal: AbortSignal, what: (signal: AbortSignal) => Promise<void>): Promise<void> {
  const stop = new AbortController();
  let timer: ReturnType<typeof setTimeout> | undefined;
  const end = () => stop.abort();
  const look = () => {
    clearTimeout(timer);
    if (document.hidden) timer = setTimeout(end, HIDDEN_MS);
  };
  document.addEventListener("visibilitychange", look);
  signal.addEventListener("abort", end);
  look();
  try {
    await what(stop.signal);
  } finally {
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", look);
    signal.removeEventListener("abort", end);
  }
}
