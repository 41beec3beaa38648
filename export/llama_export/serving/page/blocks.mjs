// Takes a text in Markdown apart: paragraphs, headings, rules, lists, fenced code; code, bold and
// italic words. What is something else stays the text that it is. It makes plain data, and its time
// grows with the length of the text alone, whatever a model writes.
//
// A block is { kind, ... }; a span is { kind: 'text' | 'code', text }, or 'strong' and 'em' with
// spans of their own.

// No expression has two ways to share out the same signs: it would try all of them in vain.
const FENCE = /^(\s*)(`{3,}(?!`)|~{3,}(?!~))([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})(?=\s)(.*)$/s;
const RULE = /^ {0,3}(?:(?:\* *){3,}|(?:- *){3,}|(?:_ *){3,})$/;
const ITEM = /^(\s*)(?:[-*+]|(\d{1,9})[.)])(?=\s)(.*)$/s;
const MOST_DEPTH = 6;
const LONGEST_MARKER = 3;
const PUNCTUATION = /[!-/:-@[-`{-~]/;
const WORD = /[\p{L}\p{N}_]/u;

export function parseBlocks(text) {
  const lines = text.split('\n');
  const blocks = [];
  for (let at = 0; at < lines.length; ) {
    const read = [readFence, readHeading, readRule, readList].find((each) => each.begins(lines[at]));
    const [block, next] = (read ?? readParagraph)(lines, at);
    if (block) blocks.push(block);
    at = next;
  }
  return blocks;
}

function readFence(lines, begin) {
  const [, indent, fence, language] = FENCE.exec(lines[begin]);
  const code = [];
  let at = begin + 1;
  for (; at < lines.length && !closes(lines[at], fence); at += 1) {
    const blank = /^\s*/.exec(lines[at])[0].length;
    code.push(lines[at].slice(Math.min(indent.length, blank)));
  }
  return [{ kind: 'code', language: language.trim(), text: code.join('\n') }, at + 1];
}
readFence.begins = (line) => FENCE.test(line);

function closes(line, fence) {
  const found = line.trim();
  return found.length >= fence.length && [...found].every((sign) => sign === fence[0]);
}

function readHeading(lines, at) {
  const [, signs, text] = HEADING.exec(lines[at]);
  return [{ kind: 'heading', level: signs.length, spans: parseSpans(text.trim()) }, at + 1];
}
readHeading.begins = (line) => HEADING.test(line);

function readRule(lines, at) {
  return [{ kind: 'rule' }, at + 1];
}
readRule.begins = (line) => RULE.test(line);

// Items, deeper ones below them, and the lines that go on with one.
function readList(lines, begin) {
  const items = [];
  let at = begin;
  for (; at < lines.length; at += 1) {
    const line = lines[at];
    const item = readFence.begins(line) || readRule.begins(line) ? null : ITEM.exec(line);
    if (item) {
      items.push({ indent: item[1].length, number: item[2], text: item[3].trimStart() });
    } else if (line.trim() === '') {
      if (!ITEM.test(lines[at + 1] ?? '')) break;
    } else if (/^\s/.test(line) && !readFence.begins(line)) {
      items.at(-1).text += `\n${line.trim()}`;
    } else {
      break;
    }
  }
  return [nest(items, 0, items.length, 0), at];
}
readList.begins = (line) => ITEM.test(line) && !RULE.test(line);

// The list of the items from `begin` to `end`: each has those below it that are indented further.
function nest(items, begin, end, depth) {
  const { indent, number } = items[begin];
  const list = { kind: 'list', start: number === undefined ? null : Number(number), items: [] };
  for (let at = begin; at < end; ) {
    let next = at + 1;
    while (depth < MOST_DEPTH && next < end && items[next].indent > indent) next += 1;
    const below = next > at + 1 ? nest(items, at + 1, next, depth + 1) : null;
    list.items.push({ spans: parseSpans(items[at].text), below });
    at = next;
  }
  return list;
}

function readParagraph(lines, begin) {
  let at = begin;
  const isGoing = (line) =>
    line.trim() !== '' &&
    (at === begin ||
      ![readFence, readHeading, readRule, readList].some((each) => each.begins(line)));
  while (at < lines.length && isGoing(lines[at])) at += 1;
  if (at === begin) return [null, at + 1];
  return [{ kind: 'paragraph', spans: parseSpans(lines.slice(begin, at).join('\n')) }, at];
}

const MARKERS = { '**': 'strong', __: 'strong', '*': 'em', _: 'em' };

export function parseSpans(text, depth = 0) {
  const spans = [];
  const unclosed = new Set(); // markers that nothing closes from here on
  let plain = '';
  const push = (span) => {
    if (plain) spans.push({ kind: 'text', text: plain });
    plain = '';
    if (span) spans.push(span);
  };
  for (let at = 0; at < text.length; ) {
    if (text[at] === '\\' && PUNCTUATION.test(text[at + 1] ?? '')) {
      plain += text[at + 1];
      at += 2;
      continue;
    }
    const marker = markerAt(text, at);
    const inner = at + marker.length;
    const isKnown = marker && marker.length <= LONGEST_MARKER && !unclosed.has(marker);
    const end = isKnown ? endOf(text, marker, inner, unclosed) : -1;
    if (end < 0 || (marker[0] !== '`' && depth >= MOST_DEPTH)) {
      plain += marker || text[at];
      at = marker ? inner : at + 1;
      continue;
    }
    const between = text.slice(inner, end);
    if (marker[0] === '`') push({ kind: 'code', text: between.trim() || between });
    else push({ kind: MARKERS[marker], spans: parseSpans(between, depth + 1) });
    at = end + marker.length;
  }
  push(null);
  return spans;
}

// The marker that begins here; '': none.
function markerAt(text, at) {
  const sign = text[at];
  if (sign === '`') {
    let end = at;
    while (text[end] === '`') end += 1;
    return text.slice(at, end);
  }
  if (sign !== '*' && sign !== '_') return '';
  const marker = text[at + 1] === sign ? sign + sign : sign;
  const before = text[at - 1] ?? ' ';
  const after = text[at + marker.length] ?? ' ';
  if (/\s/.test(after) || (sign === '_' && WORD.test(before))) return '';
  return marker;
}

// Where a marker is closed; -1: nowhere, which is remembered.
function endOf(text, marker, begin, unclosed) {
  for (let at = text.indexOf(marker, begin); at >= 0; at = text.indexOf(marker, at + 1)) {
    if (closesAt(text, marker, at) && at > begin) return at;
  }
  unclosed.add(marker);
  return -1;
}

function closesAt(text, marker, at) {
  const sign = marker[0];
  const after = text[at + marker.length] ?? '';
  if (after === sign || (text[at - 1] === sign && (sign === '`' || marker.length === 1))) {
    return false;
  }
  if (sign === '`') return true;
  return !/\s/.test(text[at - 1]) && !(sign === '_' && WORD.test(after));
}
