// Draws a text in Markdown that is still being written. It knows blocks and elements.
//
// Every word becomes a text node; nothing that a model writes is ever read as HTML.

import { parseBlocks } from './blocks.mjs';

export class MarkdownView {
  #drawn = []; // { key, node, setText } of each block

  // `copyButton` makes the button of a block of code, given a function that returns the code.
  constructor(element, copyButton) {
    this.element = element;
    this.copyButton = copyButton;
  }

  // Blocks that are as they were keep their elements, and with them what the reader has selected.
  update(text) {
    const blocks = parseBlocks(text);
    blocks.forEach((block, at) => this.#updateBlock(block, at));
    for (const { node } of this.#drawn.splice(blocks.length)) node.remove();
  }

  #updateBlock(block, at) {
    const key = JSON.stringify(block);
    const old = this.#drawn[at];
    if (old?.key === key) return;
    if (old?.setText && block.kind === 'code' && old.language === block.language) {
      old.setText(block.text);
      old.key = key;
      return;
    }
    const fresh = { key, ...this.#draw(block) };
    if (old) old.node.replaceWith(fresh.node);
    else this.element.append(fresh.node);
    this.#drawn[at] = fresh;
  }

  #draw(block) {
    if (block.kind === 'code') return this.#drawCode(block);
    return { node: DRAWN[block.kind](block) };
  }

  #drawCode({ language, text }) {
    const code = make('code', {}, text);
    const pre = make('pre', { tabIndex: 0 }, code);
    const head = make('div', { className: 'code-head' }, make('span', {}, language || 'code'));
    head.append(this.copyButton(() => code.textContent));
    const node = make('div', { className: 'code', dir: 'ltr' }, head, pre);
    const setText = (now) => {
      code.textContent = now;
    };
    return { node, language, setText };
  }
}

const DRAWN = {
  // The page has a heading of its own, and an answer's are below it.
  heading: ({ level, spans }) => make(`h${Math.min(level + 2, 6)}`, { dir: 'auto' }, ...draw(spans)),
  list: drawList,
  paragraph: ({ spans }) => make('p', { dir: 'auto' }, ...draw(spans)),
  rule: () => make('hr'),
};

function drawList({ start, items }) {
  const list = start === null ? make('ul', { dir: 'auto' }) : make('ol', { dir: 'auto', start });
  for (const { spans, below } of items) {
    list.append(make('li', {}, ...draw(spans), ...(below ? [drawList(below)] : [])));
  }
  return list;
}

function draw(spans) {
  return spans.map(({ kind, text, spans: inner }) => {
    if (kind === 'text') return text;
    return inner ? make(kind, {}, ...draw(inner)) : make(kind, {}, text);
  });
}

// An element with its properties and what is in it; a text stays a text.
export function make(tag, properties = {}, ...inside) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...inside);
  return element;
}
