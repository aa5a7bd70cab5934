/**
 * Who is looking: the token of the login link, kept for this browser until it is refused or signed out.
 *
 * The token arrives behind the `#`, which browsers never send to a server, and leaves the address bar at once, so
 * that neither history nor a shared screen keeps it.
 */

const KEY = "bramble.token";

class Session {
  token = $state<string | undefined>(read());
  /** Set when a token that was given turned out to be wrong, so that the login view can say so. */
  refused = $state(false);

  constructor() {
    // Signing out in one tab signs out in all; so does logging in.
    addEventListener("storage", (event) => {
      if (event.key === KEY || event.key === null) this.token = read();
    });
  }

  /** Takes a token out of the address, if it holds one; true when it did. */
  takeFromAddress(): boolean {
    const fragment = new URLSearchParams(location.hash.slice(1));
    const token = fragment.get("token");
    if (!token) return false;
    history.replaceState(null, "", location.pathname + location.search);
    this.accept(token);
    return true;
  }

  accept(token: string): void {
    this.token = token.trim();
    this.refused = false;
    try {
      localStorage.setItem(KEY, this.token);
    } catch {
      // Without storage the login lasts as long as the tab.
    }
  }

  /** The server does not know the token: back to the login view. */
  refuse(token: string | undefined): void {
    // An answer to an older token must not throw out the newer one.
    if (token !== this.token) return;
    this.refused = token !== undefined;
    this.forget();
  }

  signOut(): void {
    this.refused = false;
    this.forget();
  }

  private forget(): void {
    this.token = undefined;
    try {
      localStorage.removeItem(KEY);
    } catch {
      // Nothing was kept then.
    }
  }
}

function read(): string | undefined {
  try {
    return localStorage.getItem(KEY) ?? undefined;
  } catch {
    return undefined;
  }
}

export const session = new Session();
