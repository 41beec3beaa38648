// From the bytes of an answer to its events. It knows server-sent events; it does not know models.

// Yields the data of each event of a stream of bytes.
export async function* readEvents(stream) {
  const decoder = new TextDecoder();
  let rest = '';
  for await (const bytes of chunksOf(stream)) {
    rest += decoder.decode(bytes, { stream: true });
    const events = rest.split(/\r?\n\r?\n/);
    rest = events.pop();
    yield* events.map(dataOf).filter((data) => data !== null);
  }
}

// Safari's streams cannot be gone through by `for await`.
async function* chunksOf(stream) {
  const reader = stream.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    reader.cancel().catch(() => {}); // it has failed already
  }
}

function dataOf(event) {
  const lines = event.split(/\r?\n/).filter((line) => line.startsWith('data:'));
  return lines.length ? lines.map((line) => line.slice(5).replace(/^ /, '')).join('\n') : null;
}
