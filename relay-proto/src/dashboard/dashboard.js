// Reads /metrics once a second and draws what it sees; keeps five minutes, in this page only.

const EVERY_MS = 1000, PATIENCE_MS = 5000, KEPT_MS = 5 * 60_000, SHORTEST_MS = 10_000;
const RATE_MS = 3000, WAIT_MS = 10_000;
const LANES = ["voice", "data"];

// ── Reading ──────────────────────────────────────────────────────────────────────────────────────────────

/** OpenMetrics text as a map from `name{labels}`, as written, to a number. */
export function parse(text) {
  const values = new Map();
  for (const line of text.split("\n")) {
    const end = line.lastIndexOf(" ");
    if (line.startsWith("#") || end < 0) continue;
    values.set(line.slice(0, end), Number(line.slice(end + 1).replace(/inf$/i, "Infinity")));
  }
  return values;
}

/** The label of this name in `name{labels}`. */
export const label = (key, name) => key.match(new RegExp(`[{,]${name}="([^"]*)"`))?.[1];

/** The reading from which a mean over `ms` that ends at `readings[at]` begins; none after a gap or restart. */
function before(readings, at, ms) {
  const born = (reading) => reading.values?.get("process_start_time_seconds");
  let first = at;
  while (first > 0 && readings[at].time - readings[first].time < ms * 0.95) {
    if (!readings[first - 1].values || born(readings[first - 1]) !== born(readings[at])) break;
    first -= 1;
  }
  return first === at ? null : readings[first];
}

/** How much a counter grew per second. */
export function rate(readings, at, key, ms = RATE_MS) {
  const then = readings[at].values && before(readings, at, ms);
  if (!then) return null;
  const grown = (readings[at].values.get(key) ?? 0) - (then.values.get(key) ?? 0);
  return grown < 0 ? null : grown / ((readings[at].time - then.time) / 1000);
}

/** A quantile of what a histogram counted lately, straight lines between its bounds. Null if it was nothing. */
export function quantile(readings, at, name, lane, q) {
  const then = readings[at].values && before(readings, at, WAIT_MS);
  if (!then) return null;
  const buckets = [...readings[at].values]
    .filter(([key]) => key.startsWith(`${name}_bucket{`) && label(key, "lane") === lane)
    .map(([key, count]) => [Number(label(key, "le").replace("+Inf", "Infinity")), count - (then.values.get(key) ?? 0)])
    .sort(([one], [other]) => one - other);
  const rank = q * (buckets.at(-1)?.[1] ?? 0);
  if (!(rank > 0)) return null;
  let [below, counted] = [0, 0];
  for (const [bound, count] of buckets) {
    if (count >= rank) return bound === Infinity ? below : below + (bound - below) * (rank - counted) / (count - counted);
    [below, counted] = [bound, count];
  }
  return null;
}

// ── Numbers for people ───────────────────────────────────────────────────────────────────────────────────

const digits = (n) => (n === 0 || n >= 100 ? n.toFixed(0) : n >= 10 ? n.toFixed(1) : n.toFixed(2)).replace(/\.?0+$/, (zeros) => (zeros.startsWith(".") ? "" : zeros));
const scaled = (n, base, units) => {
  let power = 0;
  while (n >= base * 0.9995 && power < units.length - 1) [n, power] = [n / base, power + 1];
  return `${digits(n)}${units[power] && ` ${units[power]}`}`;
};
const plain = (n) => (n < 10_000 ? digits(n) : scaled(n, 1000, ["", "k", "M", "G"]));
const perSecond = (n) => `${plain(n)}/s`;
const bytes = (n) => scaled(n, 1024, ["B", "KiB", "MiB", "GiB", "TiB"]);
const seconds = (n) => {
  if (n > 0 && n < 0.001) return `${digits(n * 1e6)} µs`;
  return n < 1 ? `${digits(n * 1000)} ms` : `${digits(n)} s`;
};
const percent = (n) => `${digits(n)} %`;
const lasting = (s) => {
  const [days, hours, minutes] = [Math.floor(s / 86400), Math.floor(s / 3600), Math.floor(s / 60)];
  if (days > 1) return `${days} days`;
  if (hours > 1) return `${hours} hours`;
  return minutes > 1 ? `${minutes} minutes` : `${Math.max(0, Math.floor(s))} seconds`;
};
const none = "–";
const shown = (n, unit) => (n === null || Number.isNaN(n) ? none : unit(n));

// ── What is shown ────────────────────────────────────────────────────────────────────────────────────────

const gauge = (key) => (readings, at) => readings[at].values?.get(key) ?? null;
const total = (values, name) => [...values].reduce((sum, [key, n]) => sum + (key.startsWith(`${name}{`) ? n : 0), 0);
const counter = (key) => (readings, at) => rate(readings, at, key);
const wait = (lane, q) => (readings, at) => quantile(readings, at, "relay_queue_wait_seconds", lane, q);

/** One line for each combination of labels that has ever been counted, the most frequent ones first. */
const each = (name, ...labels) => (values) =>
  [...values]
    .filter(([key, n]) => key.startsWith(`${name}{`) && n > 0)
    .sort(([, one], [, other]) => other - one)
    .slice(0, 6)
    .map(([key]) => ({
      name: labels.map((name) => label(key, name).replaceAll("_", " ")).join(", "),
      read: counter(key),
    }));

const CHARTS = [
  { id: "deliveries", title: "Deliveries", note: "a second, once per receiver", unit: perSecond,
    series: () => LANES.map((lane) => ({ name: lane, read: counter(`relay_messages_delivered_total{lane="${lane}"}`) })) },
  { id: "waits", title: "Waiting time", note: "before being written", unit: seconds, empty: "Nothing was delivered lately",
    series: () => LANES.flatMap((lane, k) => [
      { name: `${lane} p50`, k, dashed: true, read: wait(lane, 0.5) }, { name: `${lane} p99`, k, read: wait(lane, 0.99) },
    ]) },
  { id: "connections", title: "Connections", note: "in a room", unit: plain, whole: true,
    series: () => ["host", "guest"].map((role) => ({ name: `${role}s`, read: gauge(`relay_connections{role="${role}"}`) })) },
  { id: "rooms", title: "Rooms", note: "live", unit: plain, whole: true,
    series: () => [{ name: "rooms", read: gauge("relay_rooms") }] },
  { id: "memory", title: "Memory", note: "of the process, and what waits", unit: bytes,
    series: () => [{ name: "resident", read: gauge("process_resident_memory_bytes") }, { name: "waiting", read: gauge("relay_held_bytes") }] },
  { id: "cpu", title: "CPU", note: "of the cores that its shards can use", unit: percent, least: 1,
    series: () => [{ name: "user and system", read: (readings, at) => {
      const used = rate(readings, at, "process_cpu_seconds_total");
      return used === null ? null : used * 100 / gauge("relay_shards")(readings, at);
    } }] },
  { id: "drops", title: "Drops", note: "messages let go a second", unit: perSecond, empty: "No message was dropped since the start",
    series: each("relay_messages_dropped_total", "lane", "reason") },
  { id: "refusals", title: "Refusals", note: "requests turned away a second", unit: perSecond, empty: "Nobody was refused since the start",
    series: each("relay_handshakes_refused_total", "reason") },
  { id: "disconnects", title: "Disconnects", note: "a second, by whom and close code", unit: perSecond, empty: "Nobody has left a room since the start",
    series: each("relay_disconnects_total", "initiator", "code") },
];

const of = (bound, unit) => (bound === undefined || bound === Infinity ? "no limit" : `of ${unit(bound)}`);
const both = (readings, at, read) => {
  const known = LANES.map((lane) => read(lane)(readings, at)).filter((n) => n !== null);
  return known.length ? known : null;
};
const TILES = [
  { id: "rooms", title: "Rooms", figure: (v) => plain(v.get("relay_rooms")), aside: (v) => of(v.get("relay_limit_rooms"), plain) },
  { id: "connections", title: "Connections", figure: (v) => plain(total(v, "relay_connections")),
    aside: (v) => `${plain(v.get("relay_sockets"))} sockets ${of(v.get("relay_limit_sockets"), plain)}` },
  { id: "deliveries", title: "Deliveries", figure: (v, readings) => {
      const rates = both(readings, readings.length - 1, (lane) => counter(`relay_messages_delivered_total{lane="${lane}"}`));
      return shown(rates && rates[0] + rates[1], perSecond);
    }, aside: (v) => `${plain(total(v, "relay_messages_delivered_total"))} since the start` },
  { id: "waits", title: "Waiting time", figure: (v, readings) => {
      const waits = both(readings, readings.length - 1, (lane) => wait(lane, 0.99));
      return shown(waits && Math.max(...waits), seconds);
    }, aside: () => "p99 of the slower lane" },
  { id: "memory", title: "Memory", figure: (v) => shown(v.get("process_resident_memory_bytes") ?? null, bytes),
    aside: (v) => `${bytes(v.get("relay_held_bytes"))} waiting` },
  { id: "certificate", title: "Certificate", figure: (v) => {
      const left = v.get("relay_certificate_expiry_timestamp_seconds") - Date.now() / 1000;
      return left === Infinity ? "no TLS" : left <= 0 ? "expired" : lasting(left);
    }, aside: (v) => {
      const until = v.get("relay_certificate_expiry_timestamp_seconds");
      return until === Infinity ? "plain text" : `valid until ${day(until)}`;
    }, grade: (v) => {
      const days = (v.get("relay_certificate_expiry_timestamp_seconds") - Date.now() / 1000) / 86400;
      return days < 3 ? "bad" : days < 14 ? "warn" : "";
    } },
];
const day = (unix) => {
  const date = new Date(unix * 1000);
  return Number.isNaN(date.getTime()) ? "the end of time" : date.toISOString().slice(0, 10);
};

// ── Drawing ──────────────────────────────────────────────────────────────────────────────────────────────

const make = (tag, attributes = {}, ...children) => {
  const svg = ["svg", "path", "line", "text", "circle"].includes(tag);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
};

/** Round steps up to what has to fit: 1, 2 or 5 times a power of ten, or of two for bytes. */
export function ticks(most, { unit, whole, least = 0 }) {
  const top = Math.max(most, least) || 1;
  const power = unit === bytes ? 2 ** (10 * Math.floor(Math.log2(top) / 10)) : 1;
  const rough = top / power / 3;
  const ten = 10 ** Math.floor(Math.log10(rough));
  let step = [1, 2, 5, 10].map((n) => n * ten).find((n) => n >= rough * 0.999) * power;
  if (whole) step = Math.max(1, Math.ceil(step));
  return Array.from({ length: Math.max(1, Math.ceil(top / step - 1e-9)) + 1 }, (_, n) => n * step);
}

const clock = (time) => new Date(time).toLocaleTimeString([], { hour12: false });

class Chart {
  constructor(spec) {
    this.spec = spec;
    this.legend = make("ul", { class: "legend" });
    this.svg = make("svg", { role: "img" });
    this.empty = make("p", { class: "empty" });
    const title = make("h2", {}, spec.title, " ", make("small", {}, spec.note));
    this.element = make("section", { class: "chart", id: spec.id }, title, this.legend, make("div", { class: "plot" }, this.svg, this.empty));
  }

  draw(readings, pointed) {
    const { spec } = this;
    const latest = readings.findLast((reading) => reading.values);
    const series = latest ? spec.series(latest.values) : [];
    const lines = series.map((one, k) => ({ k, ...one, points: readings.map((_, at) => one.read(readings, at)) }));
    const at = pointed ?? readings.length - 1;
    this.legend.replaceChildren(...lines.map((line) => this.entry(line, line.points[at] ?? null)));
    const known = lines.flatMap((line) => line.points).filter((n) => n !== null);
    this.empty.textContent = known.length ? "" : latest && (spec.empty ?? (readings.length < 2 ? "Takes a second reading" : ""));
    this.plot(readings, lines, known.length ? Math.max(...known) : null, pointed);
    const told = lines.map((line) => `${line.name} ${shown(line.points[at] ?? null, spec.unit)}`).join(", ");
    this.svg.setAttribute("aria-label", `${spec.title}, ${spec.note}: ${told || this.empty.textContent}`);
  }

  entry(line, value) {
    const sample = make("svg", { class: `k${line.k}`, viewBox: "0 0 16 8", "aria-hidden": "true" },
      make("path", { class: `series${line.dashed ? " dashed" : ""}`, d: "M1 4H15" }));
    const figure = make("b", { "data-value": value ?? "" }, shown(value, this.spec.unit));
    return make("li", { "data-series": line.name }, sample, line.name, figure);
  }

  plot(readings, lines, most, pointed) {
    const { width, height } = this.svg.getBoundingClientRect();
    const now = readings.at(-1).time;
    const span = Math.min(KEPT_MS, Math.max(SHORTEST_MS, now - readings[0].time));
    // Without a value there is no scale, and only the ground is drawn.
    const steps = ticks(most ?? 0, this.spec);
    const [left, right, top, bottom] = [54, width - 6, 8, height - 20];
    const x = (time) => right - (now - time) / span * (right - left);
    const y = (n) => bottom - n / steps.at(-1) * (bottom - top);
    const text = (at, down, anchor, content) => make("text", { x: at, y: down, "text-anchor": anchor }, content);
    const drawn = steps.slice(0, most === null ? 1 : undefined).flatMap((n) => [
      make("line", { class: "grid", x1: left, x2: right, y1: Math.round(y(n)), y2: Math.round(y(n)) }),
      text(left - 8, y(n) + 4, "end", this.spec.unit(n)),
    ]);
    drawn.push(text(left, height - 4, "start", `${lasting(span / 1000)} ago`), text(right, height - 4, "end", "now"));
    for (const line of lines) drawn.push(...this.line(line, readings.map((reading, at) => [x(reading.time), line.points[at]]), y, bottom, lines.length === 1));
    if (pointed !== null) drawn.push(...this.cursor(readings, lines, pointed, { x, y, left, right, top, bottom }));
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.svg.replaceChildren(...drawn);
    this.timeAt = (at) => now - (right - at) / (right - left) * span;
  }

  /** A path for each stretch without a gap. */
  line(line, points, y, bottom, filled) {
    const stretches = [[]];
    for (const [x, n] of points) n === null ? stretches.push([]) : stretches.at(-1).push([x.toFixed(1), y(n).toFixed(1)]);
    const paths = stretches.filter((stretch) => stretch.length).map((stretch) => {
      const d = `M${stretch.map((point) => point.join(" ")).join("L")}`;
      return { d: stretch.length > 1 ? d : `${d}h.1`, from: stretch[0][0], to: stretch.at(-1)[0] };
    });
    const areas = filled ? paths.map(({ d, from, to }) => make("path", { class: `area k${line.k}`, d: `${d}L${to} ${bottom}L${from} ${bottom}Z` })) : [];
    return [...areas, ...paths.map(({ d }) => make("path", { class: `series k${line.k}${line.dashed ? " dashed" : ""}`, d }))];
  }

  cursor(readings, lines, at, { x, y, left, right, top, bottom }) {
    const where = x(readings[at].time);
    const dots = lines.filter((line) => line.points[at] !== null)
      .map((line) => make("circle", { class: `dot k${line.k}`, cx: where, cy: y(line.points[at]), r: 3 }));
    const inside = Math.min(right - 24, Math.max(left + 24, where));
    return [
      make("line", { class: "cursor", x1: where, x2: where, y1: top, y2: bottom }), ...dots,
      make("text", { x: inside, y: bottom + 16, "text-anchor": "middle" }, clock(readings[at].time)),
    ];
  }
}

// ── The page ─────────────────────────────────────────────────────────────────────────────────────────────

const readings = [];
const charts = CHARTS.map((spec) => new Chart(spec));
const tiles = TILES.map((spec) => {
  const [figure, aside] = [make("p", { class: "figure" }, none), make("p", { class: "aside" })];
  return { ...spec, figureBox: figure, asideBox: aside, element: make("div", { class: "tile", id: `tile-${spec.id}` }, make("h2", {}, spec.title), figure, aside) };
});
const byId = (id) => document.getElementById(id);
let pointed = null;
let lost = null;

function draw() {
  if (!readings.length) return;
  for (const chart of charts) chart.draw(readings, pointed && nearest(pointed));
}

const nearest = (time) => readings.reduce((best, reading, at) =>
  (Math.abs(reading.time - time) < Math.abs(readings[best].time - time) ? at : best), 0);

function say(values) {
  const state = byId("state");
  if (!values) {
    [state.textContent, state.className] = ["Not reachable", "bad"];
    byId("notice").textContent = `The relay has not answered since ${clock(lost)}; it is asked again every second. Figures and charts show what was known before.`;
  } else {
    const draining = values.get("relay_draining") === 1;
    [state.textContent, state.className] = draining ? ["Draining", "warn"] : ["Serving", "good"];
    const build = [...values.keys()].find((key) => key.startsWith("relay_build_info{"));
    const up = Date.now() / 1000 - values.get("process_start_time_seconds");
    byId("build").textContent = `relay-${label(build, "adapter")} ${label(build, "version")}${Number.isNaN(up) ? "" : `, up for ${lasting(up)}`}`;
    for (const tile of tiles) {
      tile.figureBox.textContent = tile.figure(values, readings);
      tile.figureBox.className = `figure ${tile.grade?.(values) ?? ""}`;
      tile.asideBox.textContent = tile.aside(values);
    }
  }
  byId("notice").hidden = Boolean(values);
  document.title = `${state.textContent}: relay dashboard`;
}

async function read() {
  try {
    const answer = await fetch("metrics", { signal: AbortSignal.timeout(PATIENCE_MS), cache: "no-store" });
    if (!answer.ok) throw new Error(answer.statusText);
    return parse(await answer.text());
  } catch {
    return null;
  }
}

async function turn() {
  const values = await read();
  const time = Date.now();
  lost = values ? null : lost ?? time;
  readings.push({ time, values });
  while (time - readings[0].time > KEPT_MS) readings.shift();
  say(values);
  draw();
  setTimeout(turn, EVERY_MS);
}

byId("tiles").append(...tiles.map((tile) => tile.element));
byId("charts").append(...charts.map((chart) => chart.element));
for (const chart of charts) {
  const point = (event) => {
    pointed = chart.timeAt?.(event.clientX - chart.svg.getBoundingClientRect().left) ?? null;
    draw();
  };
  chart.svg.addEventListener("pointermove", point);
  chart.svg.addEventListener("pointerdown", point);
  chart.svg.addEventListener("pointerleave", () => { pointed = null; draw(); });
}
addEventListener("resize", draw);
byId("state").textContent = "Connecting";
document.querySelector("footer").hidden = false;
turn();
