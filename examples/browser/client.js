// A client in a page: opens a room or joins one, talks, and comes back when the relay restarts.
import { xchacha20poly1305 } from "./vendor/noble-ciphers/chacha.js";

const NONCE_BYTES = 24;
const VOICE = [0x4b, 0x56]; // "KV"
const PACKET_MS = 20;
const utf8 = new TextEncoder();
const strictly = new TextDecoder("utf-8", { fatal: true });

const random = (length) => crypto.getRandomValues(new Uint8Array(length));
const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
const encode = (bytes) =>
  btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
const decode = (text) =>
  Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (character) => character.charCodeAt(0));

function concat(...parts) {
  const whole = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  parts.reduce((at, part) => (whole.set(part, at), at + part.length), 0);
  return whole;
}

function base32(bytes) {
  const bits = Array.from(bytes, (byte) => byte.toString(2).padStart(8, "0")).join("");
  return bits.match(/.{5}/g).map((five) => "abcdefghijklmnopqrstuvwxyz234567"[parseInt(five, 2)]).join("");
}

/** What the relay never sees: the room's keys, and what is said inside a message. */
class Session {
  /** `url` is that of a relay, or an invitation: a guest's URL with the room's key behind `#`. */
  static async of(url, name) {
    const session = new Session();
    const [base, key] = url.split("#");
    Object.assign(session, { base, name, isHost: !base.includes("token=") });
    session.key = session.isHost ? random(32) : decode(key);
    if (session.isHost) {
      const pair = await crypto.subtle.generateKey("Ed25519", false, ["sign", "verify"]);
      const verifier = new Uint8Array(await crypto.subtle.exportKey("raw", pair.publicKey));
      const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", verifier));
      // Rule A10: nobody else can open a room of that id.
      const id = `k1.${base32(hash).slice(0, 26)}.${hex(random(4))}`;
      Object.assign(session, { id, signer: pair.privateKey, verifier: encode(verifier) });
    }
    return session;
  }

  /** Where to connect. */
  async url() {
    return this.isHost ? `${await this.#url("host")}&pubkey=${this.verifier}` : this.base;
  }

  /** What lets others in. What follows `#` is for no relay. */
  async invitation() {
    return `${await this.#url("guest")}#${encode(this.key)}`;
  }

  async #url(role) {
    const exp = Math.floor(Date.now() / 1000) + 86400;
    const claims = { room_id: this.id, peer_id: role, role, exp };
    const signed = [{ alg: "EdDSA", typ: "JWT" }, claims].map((part) => encode(utf8.encode(JSON.stringify(part)))).join(".");
    const signature = new Uint8Array(await crypto.subtle.sign("Ed25519", this.signer, utf8.encode(signed)));
    return `${this.base}?room=${this.id}&token=${signed}.${encode(signature)}`;
  }

  #seal(text, about) {
    const nonce = random(NONCE_BYTES);
    return concat(nonce, xchacha20poly1305(this.key, nonce, about).encrypt(text));
  }

  #open(sealed, about) {
    return xchacha20poly1305(this.key, sealed.subarray(0, NONCE_BYTES), about).decrypt(sealed.subarray(NONCE_BYTES));
  }

  /** A message, its text sealed. */
  message(type, text = "") {
    const payload = encode(this.#seal(utf8.encode(text), utf8.encode(`${type} ${this.name}`)));
    return JSON.stringify({ type, from: this.name, payload });
  }

  /** Type, sender and text of a message. Throws if it is not of our kind, or not sealed with our key. */
  open(line) {
    const { type, from, payload } = JSON.parse(line);
    // The leave notice is the relay's own, which has no key.
    if (type === "session:leave") return { type, from, text: "" };
    return { type, from, text: strictly.decode(this.#open(decode(payload), utf8.encode(`${type} ${from}`))) };
  }

  /** A packet of voice: 80 bytes of noise. */
  packet(number) {
    const name = utf8.encode(this.name);
    const head = new DataView(new ArrayBuffer(9));
    head.setUint32(0, number);
    head.setUint32(4, Math.floor(performance.now()));
    head.setUint8(8, name.length);
    const packet = concat(new Uint8Array(head.buffer), name, random(80));
    return concat(VOICE, this.#seal(packet, Uint8Array.from(VOICE)));
  }

  openPacket(bytes) {
    const packet = this.#open(bytes.subarray(VOICE.length), Uint8Array.from(VOICE));
    const head = new DataView(packet.buffer, packet.byteOffset);
    const from = strictly.decode(packet.subarray(9, 9 + head.getUint8(8)));
    return { from, number: head.getUint32(0), sent: head.getUint32(4) };
  }
}

/** What is known of the voice of one member. */
class Ear {
  count = 0;
  jitter = 0;
  line = [];

  hear({ number, sent }) {
    const transit = performance.now() - sent;
    this.first ??= number;
    this.jitter += (Math.abs(transit - (this.transit ?? transit)) - this.jitter) / 16; // RFC 3550 section 6.4.1
    this.transit = transit;
    this.count += 1;
    this.lost = number - this.first + 1 - this.count;
    this.line = [...this.line.slice(-149), this.jitter];
  }
}

/**
 * How many milliseconds to wait before the next attempt, with full jitter. Null: it would end in the same way.
 * A page is not told why a handshake was refused: that looks like a lost connection.
 */
function pause({ code, reason }, attempt) {
  const again = code === 1006 || code === 1012 || code === 1013 || reason === "ping timeout";
  return again ? Math.random() * Math.min(30_000, 1000 * 2 ** attempt) : null;
}

/** Stays in the room until somebody leaves or it makes no sense any more. Tells `view` what happens. */
class Call {
  #attempt = 0;
  #unsent = [];
  #packets = 0;

  constructor(session, view) {
    Object.assign(this, { session, view });
  }

  async connect() {
    const socket = new WebSocket(await this.session.url());
    let joined;
    this.socket = socket;
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      joined = performance.now();
      socket.send(this.session.message("hello")); // the relay learns the name, too
      this.#unsent.splice(0).forEach((text) => this.say(text));
      this.view.state("joined", "joined");
    };
    socket.onmessage = ({ data }) => {
      if (this.socket === socket) this.#hear(new Uint8Array(data));
    };
    socket.onclose = (end) => {
      if (joined && performance.now() - joined > 60_000) this.#attempt = 0;
      this.view.alone();
      const wait = this.left ? null : pause(end, this.#attempt++);
      const what = this.left ? "left" : joined ? `closed: ${end.code} ${end.reason}`.trim() : "not let in, or nobody there";
      if (wait === null) return this.view.state("ended", what);
      this.view.state("waiting", `${what}; again in ${(wait / 1000).toFixed(1)} s`);
      this.again = setTimeout(() => this.connect(), wait);
    };
  }

  #hear(bytes) {
    if (VOICE.every((byte, at) => bytes[at] === byte)) return this.#try(() => this.view.voice(this.session.openPacket(bytes)));
    // Messages that waited may come joined.
    for (const line of new TextDecoder().decode(bytes).split("\n")) {
      this.#try(() => {
        const message = this.session.open(line);
        this.view.message(message);
        if (message.type === "hello") this.socket.send(this.session.message("here"));
      });
    }
  }

  /** What is not of our kind, or not sealed with our key, is passed over. */
  #try(act) {
    try {
      act();
    } catch (error) {
      this.view.foreign(error);
    }
  }

  /** What is said while there is no connection waits for the next one. */
  say(text) {
    if (this.socket?.readyState !== WebSocket.OPEN) return this.#unsent.push(text);
    this.socket.send(this.session.message("chat", text));
    this.view.message({ type: "chat", from: this.session.name, text, mine: true });
  }

  /** One packet each 20 ms, also where timers are late. */
  talk(on) {
    clearInterval(this.talking);
    if (!on) return;
    let due = performance.now();
    this.talking = setInterval(() => {
      for (; due <= performance.now(); due += PACKET_MS) {
        if (this.socket.readyState === WebSocket.OPEN) this.socket.send(this.session.packet(this.#packets++));
      }
    }, PACKET_MS);
  }

  leave() {
    this.left = true;
    this.talk(false);
    clearTimeout(this.again);
    if (this.socket.readyState === WebSocket.CLOSED) this.view.state("ended", "left");
    this.socket.close(1000);
  }
}

const $ = (id) => document.getElementById(id);

/** What is seen of it. Whatever others have written is shown as text. */
const view = {
  people: new Map(),

  state(is, text) {
    $("state").dataset.is = is;
    $("state").textContent = text;
    $("leave").textContent = is === "ended" ? "Start again" : "Leave";
    view.note(text);
  },

  note(text) {
    view.add("note", [document.createTextNode(text)]);
  },

  add(kind, content) {
    const item = document.createElement("li");
    item.className = kind;
    item.append(...content);
    $("log").append(item);
    $("log").scrollTop = $("log").scrollHeight;
  },

  message({ type, from, text, mine }) {
    if (!mine) type === "session:leave" ? view.gone(from) : view.person(from);
    if (type !== "chat") return;
    const name = document.createElement("b");
    name.textContent = mine ? "You" : from;
    view.add(mine ? "mine" : "", [name, document.createTextNode(text)]);
  },

  person(name) {
    let person = view.people.get(name);
    if (!person) {
      const item = document.createElement("li");
      const [title, figures] = [document.createElement("b"), document.createElement("span")];
      title.textContent = name;
      item.append(title, figures);
      $("people").append(item);
      view.people.set(name, (person = { item, figures, ear: new Ear() }));
      $("alone").hidden = true;
      view.note(`${name} is here`);
    }
    return person;
  },

  gone(name) {
    view.people.get(name)?.item.remove();
    view.people.delete(name);
    $("alone").hidden = view.people.size > 0;
    view.note(`${name} has left`);
  },

  alone() {
    for (const { item } of view.people.values()) item.remove();
    view.people.clear();
    $("alone").hidden = false;
  },

  voice(packet) {
    const { item, figures, ear } = view.person(packet.from);
    ear.hear(packet);
    if (ear.count % 5) return;
    Object.assign(item.dataset, { packets: ear.count, lost: ear.lost, jitter: ear.jitter });
    figures.textContent = `${ear.jitter.toFixed(1)} ms${ear.lost ? `, ${ear.lost} lost` : ""}`;
    const top = Math.max(5, ...ear.line);
    const points = ear.line.map((jitter, at) => `${at},${(30 - (jitter / top) * 28).toFixed(1)}`).join(" ");
    if (!item.querySelector("svg")) {
      const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
      svg.setAttribute("viewBox", "0 0 149 32");
      svg.setAttribute("preserveAspectRatio", "none");
      svg.setAttribute("aria-hidden", "true");
      svg.append(document.createElementNS("http://www.w3.org/2000/svg", "polyline"));
      item.append(svg);
    }
    item.querySelector("polyline").setAttribute("points", points);
  },

  foreign(error) {
    console.info("a message that is not ours:", error.message);
  },
};

function isInvitation(url) {
  return url.includes("token=");
}

/** Reads what was entered: a relay, an invitation, or the link to this page that carries one. */
function entered() {
  const text = $("url").value.trim();
  return text.startsWith("http") && text.includes("#") ? decodeURIComponent(text.slice(text.indexOf("#") + 1)) : text;
}

async function enter() {
  const session = await Session.of(entered(), $("name").value.trim());
  const call = new Call(session, view);
  await call.connect();
  $("start").hidden = true;
  $("room").hidden = false;
  $("inviting").hidden = !session.isHost;
  if (session.isHost) {
    const invitation = await session.invitation();
    $("link").value = `${location.href.split("#")[0]}#${encodeURIComponent(invitation)}`;
    $("copy").onclick = () => navigator.clipboard.writeText($("link").value);
    $("copy-url").onclick = () => navigator.clipboard.writeText(invitation);
    $("copy-url").dataset.url = invitation;
  }
  $("say").onsubmit = (event) => {
    event.preventDefault();
    if ($("text").value.trim()) call.say($("text").value);
    $("text").value = "";
  };
  $("voice").onclick = ({ currentTarget: button }) => {
    const on = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", on);
    button.textContent = on ? "Stop voice" : "Send voice";
    call.talk(on);
  };
  $("leave").onclick = () => ($("state").dataset.is === "ended" ? location.reload() : call.leave());
  $("text").focus();
}

$("url").oninput = () => {
  $("enter").textContent = isInvitation(entered()) ? "Join the room" : "Open a room";
};
$("url").value = location.hash ? decodeURIComponent(location.hash.slice(1)) : "ws://127.0.0.1:8443/ws";
$("url").oninput();
$("start").onsubmit = (event) => {
  event.preventDefault();
  enter().catch((error) => view.state("ended", error.message));
};
