"""What the relay never sees: the room's keys, and what is said inside a message."""

import base64
import hashlib
import json
import os
import struct
import time
from urllib.parse import urlencode, urlsplit

from nacl.exceptions import CryptoError
from nacl.secret import Aead  # XChaCha20-Poly1305; what it seals begins with the nonce of 24 bytes
from nacl.signing import SigningKey

VOICE = b"KV"
HEAD = struct.Struct(">IIB")  # of a packet: its number, when it was made in ms, the length of the name that follows


def encode(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Session:
    """A room as a member knows it. Whoever opens it has, besides, its id and the key that signs its tokens."""

    # What is raised by what is not of our kind, or not sealed with our key.
    FOREIGN = (CryptoError, LookupError, TypeError, ValueError, struct.error)

    def __init__(self, url, name):
        """`url` is that of a relay, or an invitation: a guest's URL with the room's key behind `#`."""
        parts = urlsplit(url)
        self.base, self.name = parts._replace(fragment="").geturl(), name
        self.is_host = "token=" not in parts.query
        if self.is_host:
            self.signer, self.key = SigningKey.generate(), os.urandom(32)
            hashed = base64.b32encode(hashlib.sha256(bytes(self.signer.verify_key)).digest()).decode()
            # Rule A10: nobody else can open a room of that id.
            self.id = f"k1.{hashed[:26].lower()}.{os.urandom(4).hex()}"
        else:
            self.key = decode(parts.fragment)
        self.sealer, self.voices = Aead(self.key), {}

    def url(self):
        """Where to connect."""
        return self._url("host", pubkey=encode(bytes(self.signer.verify_key))) if self.is_host else self.base

    def invitation(self):
        """What lets others in. What follows `#` is for no relay."""
        return f"{self._url('guest')}#{encode(self.key)}"

    def _url(self, role, **more):
        claims = {"room_id": self.id, "peer_id": role, "role": role, "exp": int(time.time()) + 86400}
        parts = [{"alg": "EdDSA", "typ": "JWT"}, claims]
        signed = ".".join(encode(json.dumps(part).encode()) for part in parts)
        signature = encode(self.signer.sign(signed.encode()).signature)
        return f"{self.base}?{urlencode({'room': self.id, 'token': f'{signed}.{signature}', **more})}"

    def message(self, kind, text=""):
        """A message, its text sealed."""
        sealed = self.sealer.encrypt(text.encode(), f"{kind} {self.name}".encode())
        return json.dumps({"type": kind, "from": self.name, "payload": encode(sealed)})

    def open(self, line):
        """Type, sender and text of a message."""
        message = json.loads(line)
        kind, sender = message["type"], message["from"]
        if kind == "session:leave":
            return kind, sender, ""  # from the relay itself, which has no key
        return kind, sender, self.sealer.decrypt(decode(message["payload"]), f"{kind} {sender}".encode()).decode()

    def packet(self, number):
        """A packet of voice: 80 bytes of noise."""
        name = self.name.encode()
        head = HEAD.pack(number, int(time.monotonic() * 1000) % 2**32, len(name))
        return VOICE + self.sealer.encrypt(head + name + os.urandom(80), VOICE)

    def hear_packet(self, data):
        """Now and then, what there is to say about the voice of whoever sent this packet."""
        packet = self.sealer.decrypt(data[len(VOICE):], VOICE)
        number, sent, length = HEAD.unpack_from(packet)
        sender, transit = packet[HEAD.size:][:length].decode(), time.monotonic() * 1000 - sent
        first, count, jitter, before = self.voices.get(sender, (number, 0, 0, transit))
        jitter += (abs(transit - before) - jitter) / 16  # RFC 3550 section 6.4.1
        self.voices[sender] = first, count + 1, jitter, transit
        said = f"{sender}: {count + 1} packets of voice, {number - first - count} lost, jitter {jitter:.1f} ms"
        return said if (count + 1) % 50 == 0 else None
