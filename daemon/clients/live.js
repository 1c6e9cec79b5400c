// In each page of the preview: reloads it when the agent has changed the files, and says what goes wrong in it.
(() => {
  "use strict";
  const me = document.currentScript;
  const request = fetch.bind(window); // a page may put its own in that place
  const base = new URL(".", me.src); // the reserved folder
  const root = new URL("..", base).pathname; // of the preview
  const page = location.pathname.startsWith(root) ? location.pathname.slice(root.length) : location.pathname;

  // --- what goes wrong

  let left = 20; // of one page
  const short = (url) => String(url || "").replace(location.origin + root, "");
  const text = (value) => {
    try {
      if (value instanceof Error) return `${value.name}: ${value.message}`;
      return typeof value === "object" ? JSON.stringify(value) : String(value);
    } catch {
      return "something that cannot be shown";
    }
  };
  const tell = (message, source, line, column) => {
    if (left-- <= 0) return;
    const said = { path: page, message: String(message).slice(0, 500), source: short(source).slice(0, 250) };
    const query = new URLSearchParams({ ...said, line: line || 0, column: column || 0 });
    request(new URL(`error?${query}`, base), { method: "POST", keepalive: true }).catch(() => {});
  };
  addEventListener("error", (event) => {
    const what = event.target;
    if (what instanceof Element) tell(`cannot load ${short(what.currentSrc || what.src || what.href) || what.tagName}`);
    else tell(event.message, event.filename, event.lineno, event.colno);
  }, true);
  addEventListener("unhandledrejection", (event) => tell(`unhandled rejection: ${text(event.reason)}`));
  const said = console.error;
  console.error = (...words) => {
    tell(words.map(text).join(" "));
    said.apply(console, words);
  };

  // --- reloading

  try {
    if (parent !== window && parent.location.pathname.startsWith(root)) return; // that page reloads, and this with it
  } catch {
    // framed by another site
  }
  const place = `footlight ${location.pathname}`;
  try {
    const kept = sessionStorage.getItem(place);
    sessionStorage.removeItem(place);
    if (kept) addEventListener("load", () => scrollTo(...kept.split(" ")));
  } catch {
    // no storage here
  }
  const reload = () => {
    try {
      sessionStorage.setItem(place, `${scrollX} ${scrollY}`);
    } catch {
      // the browser's own memory of the place has to do
    }
    location.reload();
  };

  let version = null;
  let asking = null;
  const ask = async () => {
    const mine = (asking = new AbortController());
    let failures = 0;
    while (asking === mine && failures < 12) {
      const query = new URLSearchParams(version === null ? { path: page, tag: me.dataset.tag } : { version });
      try {
        const answer = await request(new URL(`live?${query}`, base), { signal: mine.signal, cache: "no-store" });
        if (answer.status === 401 || answer.status === 410) return; // the session has ended
        const said = await answer.json();
        if (said.changed) return void setTimeout(reload, 200); // files often change several at once
        version = said.version;
        failures = 0;
      } catch {
        failures += 1;
        await new Promise((done) => setTimeout(done, Math.min(30000, 500 * 2 ** failures)));
      }
    }
  };
  const look = () => {
    asking?.abort(); // a page that nobody sees asks nothing
    asking = null;
    if (!document.hidden) ask();
  };
  addEventListener("visibilitychange", look);
  look();
})();
