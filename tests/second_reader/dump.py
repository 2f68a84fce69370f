"""A second reader of the format, written from format-spec.md alone.

    python3 dump.py DIR [--now-ms MS]

Prints every record that is there as JSON Lines, sorted by keyspace and key. Any check of the
specification that does not hold ends it with a message and exit code 3.
"""
import glob, json, os, struct, sys, time, zlib
import zstandard


def die(text):
    print(f"dump: {text}", file=sys.stderr)
    sys.exit(3)


def check(holds, text):
    if not holds:
        die(text)


def bound_crc(nonce, offset, data):
    return zlib.crc32(struct.pack("<QQ", nonce, offset) + data)


def read(path):
    with open(path, "rb") as file:
        return file.read()


class Cursor:
    def __init__(self, data, at=0):
        self.data, self.at = data, at

    def take(self, count):
        check(self.at + count <= len(self.data), "bytes end early")
        self.at += count
        return self.data[self.at - count:self.at]

    def num(self, width):
        return int.from_bytes(self.take(width), "little")

    def varint(self):
        value, shift = 0, 0
        while True:
            byte = self.num(1)
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def zigzag(self):
        value = self.varint()
        return value >> 1 ^ -(value & 1)

    def string(self):
        return self.take(self.num(8)).decode()


def read_op(c):
    kind = c.num(4)
    if kind == 0:
        return kind, (c.take(16), c.take(16), c.num(8), c.string() if c.num(1) else None)
    if kind == 11:
        name = c.string()
        return kind, (name,) + tuple(c.num(w) for w in (4, 8, 1, 1, 8, 4))
    if kind == 12:
        return kind, (c.string(), c.num(4), c.num(8))
    widths = {1: (4, 4), 2: (4, 1), 3: (4,), 4: (4, 1, 8, 8, 8, 4), 5: (4,), 6: (4, 8), 7: (4,),
              8: (4, 8), 9: (4,), 10: (4,), 13: (8,), 14: (8,), 15: (8,),
              16: (4,), 17: (4, 8, 4)}
    check(kind in widths, f"op {kind}")
    return kind, tuple(c.num(w) for w in widths[kind])


def read_manifest_copy(path):
    data = read(path)
    if len(data) < 64 or data[:8] != b"TRCMAN01":
        return None
    if struct.unpack_from("<I", data, 60)[0] != bound_crc(0, 0, data[:60]):
        return None
    nonce, at, edits = struct.unpack_from("<Q", data, 40)[0], 64, []
    while at + 8 <= len(data):
        length, crc = struct.unpack_from("<II", data, at)
        payload = data[at + 8:at + 8 + length]
        if length == 0 or len(payload) < length or bound_crc(nonce, at, payload) != crc:
            break
        cursor = Cursor(payload)
        edits.append([read_op(cursor) for _ in range(cursor.num(8))])
        at += 8 + length
    return edits or None


class FileSet:
    def __init__(self, directory):
        self.files, self.keyspaces, self.journal_at = {}, {}, 1
        generations = sorted({path[:-1] for path in glob.glob(f"{directory}/*.man[01]")})
        for base in reversed(generations):
            copies = [read_manifest_copy(base + n) for n in "01" if os.path.exists(base + n)]
            copies = [copy for copy in copies if copy]
            if copies:
                for edit in max(copies, key=len):
                    for op in edit:
                        self.apply(*op)
                return
        die("no manifest")

    def apply(self, kind, f):
        states = {2: "open", 3: "draft", 4: "sealed", 5: "draft", 6: "archive", 7: "draft", 8: "bits",
                  16: "draft", 17: "image"}
        if kind == 0:
            self.store, self.archive_dir = f[0], f[3]
        elif kind in states:
            self.files[f[0]] = (states[kind],) + f[1:]
        elif kind == 9:
            self.files[f[0]] = ("doomed",)
        elif kind == 10:
            self.files.pop(f[0], None)
        elif kind == 11:
            self.keyspaces[f[0]] = f[1]
        elif kind == 12 and self.keyspaces.get(f[0], 1 << 32) <= f[1]:
            del self.keyspaces[f[0]]
        elif kind == 13:
            self.journal_at = max(self.journal_at, f[0])

    def of(self, state):
        return sorted((id, facts) for id, facts in self.files.items() if facts[0] == state)


def read_bits(directory, files):
    bits = {}
    for id, _ in files.of("bits")[-1:]:
        data = read(f"{directory}/{id:010}.bit")
        check(data[:8] == b"TRCBIT01", "bitmap magic")
        check(struct.unpack("<I", data[-4:])[0] == bound_crc(id, 0, data[:-4]), "bitmap checksum")
        cursor = Cursor(data, 40)
        count, _ = cursor.num(4), cursor.num(4)
        for _ in range(count):
            file, records = cursor.num(4), cursor.num(4)
            bits[file] = cursor.take((records + 7) // 8)
    return lambda file, i: i // 8 < len(bits.get(file, b"")) and bits[file][i // 8] >> i % 8 & 1


class Segment:
    def __init__(self, directory, store, id):
        self.data, self.id = read(f"{directory}/{id:010}.seg"), id
        header = self.data[:64]
        check(header[:8] == b"TRCSEG01" and header[16:32] == store, f"segment {id}: header")
        check(struct.unpack_from("<I", header, 60)[0] == bound_crc(0, 0, header[:60]), "header crc")
        check(struct.unpack_from("<I", header, 32)[0] == id, "segment id")
        self.nonce = struct.unpack_from("<Q", header, 48)[0]

    def record(self, at):
        """The record at an offset, or None when it does not hold."""
        h = self.data[at:at + 40]
        if len(h) < 40 or struct.unpack_from("<I", h)[0] != bound_crc(self.nonce, at, h[4:]):
            return None
        crc, seq, deadline, vlen, klen, kind, flags, incarnation, _ = struct.unpack("<IQQIHBBII", h[4:])
        key = self.data[at + 40:at + 40 + klen]
        value = self.data[at + 40 + klen:at + 40 + klen + vlen]
        if zlib.crc32(struct.pack("<I", incarnation) + key + value) != crc:
            return None
        return seq, deadline, kind, flags & 1, incarnation, key, value, at + (40 + klen + vlen + 7) // 8 * 8

    def trailer(self, length):
        at = length - 64
        footer = self.data[at:length]
        check(footer[:8] == b"TRCEND01", f"segment {self.id}: footer")
        check(struct.unpack_from("<I", footer, 60)[0] == bound_crc(self.nonce, at, footer[:60]), "footer crc")
        start, size, crc = struct.unpack_from("<QII", footer, 16)
        data = self.data[start:start + size]
        check(zlib.crc32(data) == crc and data[:8] == b"TRCTRL01", "trailer")
        count, groups, base_seq, base_deadline, incs, _ = struct.unpack_from("<IIQQII", data, 8)
        c = Cursor(data, 48 + 4 * incs + 8 * groups)
        for i in range(count):
            c.varint()
            offset, length_flags = c.varint() * 8, c.varint()
            c.varint(), c.varint()
            if length_flags & 2:
                c.varint()
            yield i, offset, length_flags & 4


def read_archive(directory, store, id, length):
    data = read(f"{directory}/{id:010}.arc")
    check(len(data) == length and data[:8] == b"TRCARC01" and data[16:32] == store, "archive header")
    nonce, created = struct.unpack_from("<QQ", data, 32)
    footer = data[-256:]
    check(footer[:8] == b"TRCARF01", "archive footer")
    check(struct.unpack_from("<I", footer, 252)[0] == bound_crc(nonce, length - 256, footer[:252]), "footer crc")
    regions = [struct.unpack_from("<QQI", footer, 32 + 24 * i) for i in range(4)]
    for offset, size, crc in regions:
        check(bound_crc(nonce, offset, data[offset:offset + size]) == crc, "archive region")
    dictionary = data[regions[0][0]:regions[0][0] + regions[0][1]]
    index, blocks = regions[2][0], struct.unpack_from("<I", footer, 132)[0]
    plain = zstandard.ZstdDecompressor()
    helped = zstandard.ZstdDecompressor(dict_data=zstandard.ZstdCompressionDict(dictionary))
    for block in range(blocks):
        at = struct.unpack_from("<Q", data, index + 16 * block)[0]
        crc, stored, raw, ordinal, count, codec = struct.unpack_from("<IIIIIB", data, at)
        check(bound_crc(nonce, at, data[at + 4:at + 24 + stored]) == crc, "block checksum")
        body = data[at + 24:at + 24 + stored]
        if codec != 1:
            body = (helped if codec == 3 else plain).decompress(body, max_output_size=raw)
        check(len(body) == raw, "block length")
        c, key, seq = Cursor(body), b"", 0
        for i in range(count):
            if i % 16 == 0:
                key, seq = b"", 0
            shared, unshared, tag = c.varint(), c.varint(), c.varint()
            key = key[:shared] + c.take(unshared)
            seq = (seq + c.zigzag()) % (1 << 64)
            deadline = (created + c.zigzag()) % (1 << 64) if tag & 2 else 0
            crc = c.num(4)
            if tag & 1:
                c.varint()
                start = c.varint() * 8
                value = data[start:start + tag // 4]
            else:
                value = c.take(tag // 4)
            incarnation = int.from_bytes(key[:4], "big")
            check(zlib.crc32(struct.pack("<I", incarnation) + key[4:] + value) == crc, "archived body")
            yield ordinal + i, incarnation, key[4:], seq, deadline, value


def read_journal(directory, files, newest, offer):
    opened = {id: Segment(directory, files.store, id) for id, _ in files.of("open")}
    journals = [opened[id] for id, facts in files.of("open") if facts[1] == 1]
    journals = sorted((s for s in journals if s.record(64)), key=lambda s: s.record(64)[0])
    expected = files.journal_at
    for segment in journals:
        at, pending = 64, []
        while record := segment.record(at):
            seq, deadline, kind, more, incarnation, key, value, at = record
            if kind == 3:
                id, count, end = struct.unpack("<IIQ", value)
                other, inner = opened[id], 64
                first = seq - count + 1
                if first != expected:
                    return
                while inner < end:
                    r = other.record(inner)
                    check(r, "attached record")
                    offer(r[4], r[5], r[0], r[1], r[2], r[6])
                    inner = r[7]
            else:
                if seq != expected + len(pending):
                    return
                pending.append((incarnation, key, seq, deadline, kind, value))
                if more:
                    continue
                for one in pending:
                    if one[4] == 4:
                        after = struct.unpack("<I", one[5])[0]
                        for name, now in list(files.keyspaces.items()):
                            if now == one[0]:
                                files.keyspaces.pop(name)
                                if after:
                                    files.keyspaces[name] = after
                    else:
                        offer(*one)
                pending = []
            expected = seq + 1


def main():
    directory = sys.argv[1]
    now = int(sys.argv[3]) if len(sys.argv) > 3 else int(time.time() * 1000)
    files, newest = FileSet(directory), {}
    is_dead = read_bits(directory, files)

    def offer(incarnation, key, seq, deadline, kind, value):
        if seq > newest.get((incarnation, key), (0,))[0]:
            newest[incarnation, key] = (seq, deadline, kind, value)

    for id, facts in files.of("sealed"):
        segment = Segment(directory, files.store, id)
        for i, offset, superseded in segment.trailer(facts[2]):
            if not superseded and not is_dead(id, i):
                r = segment.record(offset)
                check(r, f"segment {id} at {offset}: record")
                offer(r[4], r[5], r[0], r[1], r[2], r[6])
    read_journal(directory, files, newest, offer)
    log = set(newest)
    for id, facts in files.of("archive"):
        for i, incarnation, key, seq, deadline, value in read_archive(
                files.archive_dir or directory, files.store, id, facts[1]):
            if not is_dead(id, i) and (incarnation, key) not in log:
                offer(incarnation, key, seq, deadline, 1, value)
    names = {incarnation: name for name, incarnation in files.keyspaces.items()}
    lines = []
    for (incarnation, key), (seq, deadline, kind, value) in newest.items():
        if incarnation in names and kind == 1 and not 0 < deadline <= now:
            lines.append((names[incarnation].encode(), key, seq, deadline, value))
    for name, key, seq, deadline, value in sorted(lines):
        print(json.dumps({
            "keyspace": name.decode(), "key_hex": key.hex(), "seq": seq,
            "expires_at_ms": deadline, "value_crc": zlib.crc32(value), "value_len": len(value)}))


main()
