// The page's scripts that draw nothing, in Node; tests/serving/test_web_page.py runs this file.

import assert from 'node:assert/strict';
import { test } from 'node:test';

const PAGE = '../../export/llama_export/serving/page/';
const { readEvents } = await import(`${PAGE}answer_stream.mjs`);
const { parseBlocks, parseSpans } = await import(`${PAGE}blocks.mjs`);
const { Client, partsOf } = await import(`${PAGE}client.mjs`);
const { newTurn, requestOf, revive, Stopwatch, wordsOf } = await import(`${PAGE}conversation.mjs`);
const { Fault, faultOf } = await import(`${PAGE}faults.mjs`);
const { FIELDS, faultOfField, ownValue, parametersOf } = await import(`${PAGE}settings.mjs`);
const { tabStore } = await import(`${PAGE}stores.mjs`);

const MODEL = {
  id: 'm',
  meta: {
    for_chat: true,
    context: 100,
    max_tokens: { usual: 50, most: 80 },
    drawing: { temperature: 0.7, top_p: 0.95, top_k: 0, min_p: 0, repetition_penalty: 1 },
  },
};
const BASE = { ...MODEL, meta: { ...MODEL.meta, for_chat: false } };

function streamOf(...pieces) {
  return new ReadableStream({
    start(controller) {
      for (const piece of pieces) controller.enqueue(piece);
      controller.close();
    },
  });
}

async function all(iterable) {
  const found = [];
  for await (const each of iterable) found.push(each);
  return found;
}

function plain(spans) {
  return spans.map((span) => span.text ?? plain(span.spans)).join('');
}

test('a stream is read whatever pieces it comes in', async () => {
  const text = 'data: {"a":"é – 漢"}\n\n: a comment\n\nevent: x\r\ndata:1\r\ndata: 2\r\n\r\ndata: [DONE]\n\n';
  const bytes = new TextEncoder().encode(text);
  const expected = ['{"a":"é – 漢"}', '1\n2', '[DONE]'];
  for (let size = 1; size <= bytes.length; size += 1) {
    const pieces = [];
    for (let at = 0; at < bytes.length; at += size) pieces.push(bytes.slice(at, at + size));
    assert.deepEqual(await all(readEvents(streamOf(...pieces))), expected, `pieces of ${size}`);
  }
});

test('half an event at the end is none', async () => {
  const bytes = new TextEncoder().encode('data: 1\n\ndata: 2\n');
  assert.deepEqual(await all(readEvents(streamOf(bytes))), ['1']);
});

test('the parts of a chunk of either protocol', () => {
  const usage = { prompt_tokens: 1 };
  const parts = (chunk) => [...partsOf(chunk)];
  assert.deepEqual(parts({ choices: [{ delta: { role: 'assistant', content: '' } }] }), []);
  assert.deepEqual(parts({ choices: [{ delta: { content: 'a' } }], usage: null }), [{ text: 'a' }]);
  assert.deepEqual(parts({ choices: [{ text: '', finish_reason: 'length' }] }), [
    { reason: 'length' },
  ]);
  assert.deepEqual(parts({ choices: [], usage }), [{ usage }]);
  assert.throws(() => parts({ error: { message: 'it is late' } }), /^Error: It is late\.$/);
});

// Lets `fetch` answer so within `use`.
async function withFetch(answer, use) {
  const real = globalThis.fetch;
  globalThis.fetch = answer;
  try {
    return await use();
  } finally {
    globalThis.fetch = real;
  }
}

const asked = { path: 'v1/chat/completions', body: {} };
const ask = (key = '') => all(new Client(() => key).write(asked, new AbortController().signal));

test('an answer that ends without its mark is broken off', async () => {
  const chunk = 'data: {"choices":[{"delta":{"content":"a"}}]}\n\n';
  const answer = (text) => async () => new Response(text);
  assert.deepEqual(await withFetch(answer(`${chunk}data: [DONE]\n\n`), ask), [{ text: 'a' }]);
  await assert.rejects(withFetch(answer(chunk), ask), { message: /broke off/ });
  await assert.rejects(withFetch(answer(`${chunk}data: {"cho\n\n`), ask), { message: /broke off/ });
});

test('every refusal is told with what to do', async () => {
  const refusal = (status, error, headers) => async () =>
    new Response(JSON.stringify({ error }), { status, headers });
  const told = async (answer) => {
    const fault = await withFetch(answer, () => ask().catch((error) => error));
    assert.ok(fault instanceof Fault);
    return `${fault.status} ${fault.message} ${fault.hint}`;
  };
  const busy = refusal(429, { message: '9 requests wait already' }, { 'Retry-After': '7' });
  assert.match(await told(busy), /^429 9 requests wait already\. Try again in 7 s\. .*is kept/);
  const full = refusal(400, { message: 'too long', code: 'context_length_exceeded' });
  assert.match(await told(full), /^400 Too long\. Begin a new conversation/);
  assert.match(await told(refusal(401, { message: 'no key' })), /Type the key/);
  const proxy = async () => new Response('<html>', { status: 502 });
  assert.match(await told(proxy), /^502 The server answered 502 and did not say why\./);
  const gone = async () => {
    throw new TypeError('fetch failed');
  };
  assert.match(await told(gone), /^0 The server cannot be reached\. .*is kept/);
  const within = (error) => async () => new Response(`data: ${JSON.stringify({ error })}\n\n`);
  const late = { message: 'it is late', type: 'server_error', code: 'timeout' };
  assert.match(await told(within(late)), /^0 It is late\. .*larger --timeout/);
  const ending = { message: 'it ends', type: 'server_error', code: 'server_shutting_down' };
  assert.match(await told(within(ending)), /^0 It ends\. Start the server again/);
  const ours = { message: 'a fault', type: 'server_error', code: null };
  assert.match(await told(within(ours)), /^0 A fault\. The terminal of the server/);
});

test('a key goes into a header, and none where there is none', async () => {
  const seen = [];
  const answer = async (path, { headers }) => {
    seen.push([path, headers.Authorization]);
    return new Response('data: [DONE]\n\n');
  };
  await withFetch(answer, () => ask('k'));
  await withFetch(answer, () => ask(''));
  assert.deepEqual(seen, [
    ['v1/chat/completions', 'Bearer k'],
    ['v1/chat/completions', undefined],
  ]);
});

test('a request has the conversation, without what was never answered', () => {
  const answered = { ...newTurn('q1'), answer: 'a1' };
  const turns = [answered, newTurn('lost'), newTurn('q2')];
  const { path, body } = requestOf(turns, MODEL, { system: ' Be brief. ', temperature: '0' });
  assert.equal(path, 'v1/chat/completions');
  assert.deepEqual(body, {
    model: 'm',
    stream: true,
    stream_options: { include_usage: true },
    max_tokens: 50,
    temperature: 0,
    messages: [
      { role: 'system', content: 'Be brief.' },
      { role: 'user', content: 'q1' },
      { role: 'assistant', content: 'a1' },
      { role: 'user', content: 'q2' },
    ],
  });
  const base = requestOf(turns, BASE, { system: 'Be brief.' });
  assert.equal(base.path, 'v1/completions');
  assert.equal(base.body.prompt, 'q1a1q2');
  assert.equal('messages' in base.body, false);
});

test('what is typed is sent as a number, and what is wrong is not', () => {
  const settings = { top_k: '40', top_p: '2', min_p: ' ', seed: '1.5', max_tokens: '81' };
  assert.deepEqual(parametersOf(settings, MODEL), { max_tokens: 50, top_k: 40 });
  assert.deepEqual(parametersOf({ max_tokens: '80' }, MODEL), { max_tokens: 80 });
  const faults = FIELDS.map((field) => faultOfField(field, settings[field.name] ?? '', MODEL));
  assert.deepEqual(faults.filter(Boolean), [
    'expected a number from 1e-9 to 1',
    'expected a whole number from 1 to 80',
    'expected a whole number from 0 to 9007199254740991',
  ]);
  assert.deepEqual(
    FIELDS.map(({ name }) => ownValue(name, MODEL)),
    [0.7, 0.95, 0, 0, 1, 50, null],
  );
});

test('figures of an answer, in words', () => {
  let now = 10;
  const watch = new Stopwatch(() => now);
  for (now of [10.5, 11, 12.5]) watch.mark();
  const usage = {
    prompt_tokens: 9,
    completion_tokens: 5,
    prompt_tokens_details: { cached_tokens: 4 },
  };
  const request = { body: { max_tokens: 5 } };
  const words = (usage, reason, by = '') =>
    wordsOf(watch.figures({ usage, reason, by }, request, MODEL));
  assert.deepEqual(words(usage, 'length'), [
    '5 tokens',
    '2.0 tok/s',
    'first token after 0.50 s',
    'prompt 9 tokens, 4 of them cached',
    'context 14 of 100',
    'cut at max tokens (5)',
  ]);
  assert.equal(words({ ...usage, completion_tokens: 4 }, 'length').at(-1), 'cut: the context is full');
  assert.deepEqual(words(null, 'stopped'), ['first token after 0.50 s', 'stopped by you']);
  const none = new Stopwatch(() => now).figures({ usage: null, reason: 'stopped' }, request, MODEL);
  assert.deepEqual(wordsOf(none), ['stopped by you']);
  assert.deepEqual(words({ prompt_tokens: 1, completion_tokens: 1 }, 'stop'), [
    '1 token',
    'first token after 0.50 s',
    'prompt 1 token',
    'context 2 of 100',
  ]);
  assert.equal(words(null, 'stopped', 'demo')[0], 'demo');
});

test('a conversation that was kept comes back, and what is none does not', () => {
  assert.deepEqual(revive('x'), []);
  assert.deepEqual(revive([null, 5, { question: 'q' }]), []);
  const [whole] = revive([{ question: 'q', answer: 'a', figures: { written: 1 } }]);
  assert.equal(whole.fault, null);
  const [left] = revive([{ question: 'q', answer: 'a' }]);
  assert.match(left.fault.message, /was left/);
});

test('a browser that keeps nothing is no fault', () => {
  tabStore.keep('a', 1); // Node has no such store
  assert.equal(tabStore.recall('a', 'otherwise'), 'otherwise');
  tabStore.forget('a');
});

test('Markdown is taken apart', () => {
  const text =
    'One\ntwo **bold *and* more** `a*b`\n\n## Head\n3. c\n4. d\n   - e\n\n5. f\n' +
    '```py\nx = "**"\n\n```\nend\n---';
  const blocks = parseBlocks(text);
  assert.deepEqual(
    blocks.map(({ kind }) => kind),
    ['paragraph', 'heading', 'list', 'code', 'paragraph', 'rule'],
  );
  assert.deepEqual(blocks[0].spans, [
    { kind: 'text', text: 'One\ntwo ' },
    {
      kind: 'strong',
      spans: [
        { kind: 'text', text: 'bold ' },
        { kind: 'em', spans: [{ kind: 'text', text: 'and' }] },
        { kind: 'text', text: ' more' },
      ],
    },
    { kind: 'text', text: ' ' },
    { kind: 'code', text: 'a*b' },
  ]);
  assert.equal(blocks[1].level, 2);
  assert.equal(blocks[2].start, 3);
  assert.equal(blocks[2].items.length, 3);
  assert.equal(plain(blocks[2].items[1].below.items[0].spans), 'e');
  assert.deepEqual(blocks[3], { kind: 'code', language: 'py', text: 'x = "**"\n' });
});

test('a line of any length and with any sign in it is what it begins as', () => {
  // Where an expression could share the blanks out in many ways, this would take minutes.
  const blanks = ' '.repeat(2 ** 18);
  const [heading] = parseBlocks(`##${blanks}a\rb`);
  assert.deepEqual(heading, { kind: 'heading', level: 2, spans: [{ kind: 'text', text: 'a\rb' }] });
  const [list] = parseBlocks(`-${blanks}a\u2028b`);
  assert.equal(plain(list.items[0].spans), 'a\u2028b');
  const [paragraph] = parseBlocks(`${'~'.repeat(2 ** 18)}${blanks}\``);
  assert.equal(paragraph.kind, 'paragraph');
});

test('code that has no end yet is code', () => {
  const [block] = parseBlocks('```\nif x:\n    y');
  assert.deepEqual(block, { kind: 'code', language: '', text: 'if x:\n    y' });
  const [, inside] = parseBlocks('- a\n  ```\n  b\n  ```');
  assert.equal(inside.text, 'b');
});

test('what is no mark of Markdown stays as it was written', () => {
  for (const text of ['2 * 3 * 4', 'snake_case_name', '**open', 'a ` b', '<b>x</b> &amp;', '[a](b)']) {
    assert.deepEqual(parseSpans(text), [{ kind: 'text', text }]);
  }
  assert.equal(plain(parseSpans('\\*no\\*')), '*no*');
});

test('no letter of a text is lost, whatever a model writes', () => {
  const signs = ['*', '_', '`', '\n', '- ', '1. ', '# ', ' ', 'ab', '```', '\\', '~~~'];
  let state = 7;
  const next = (most) => {
    state = (state * 1103515245 + 12345) % 2 ** 31;
    return Math.floor((state / 2 ** 31) * most);
  };
  const wordsIn = (value) =>
    typeof value === 'string'
      ? value
      : Object.entries(value ?? {})
          .filter(([key]) => key !== 'kind')
          .map(([, inner]) => (typeof inner === 'number' ? '' : wordsIn(inner)))
          .join('');
  for (let round = 0; round < 2000; round += 1) {
    const text = Array.from({ length: 40 }, () => signs[next(signs.length)]).join('');
    const count = (found) => found.split('ab').length;
    assert.equal(count(wordsIn(parseBlocks(text))), count(text), JSON.stringify(text));
  }
});

test('the end of a mark is not looked for twice in vain', () => {
  const real = String.prototype.indexOf;
  const looks = (text) => {
    let count = 0;
    String.prototype.indexOf = function indexOf(...words) {
      count += 1;
      return real.apply(this, words);
    };
    try {
      parseBlocks(text);
    } finally {
      String.prototype.indexOf = real;
    }
    return count;
  };
  for (const part of ['**a ', '*a ', '`a ', '_a ', '*_', '**a*b', '***']) {
    assert.ok(looks(part.repeat(2000)) < 20000, part);
  }
});
