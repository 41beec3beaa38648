// The conversation as the reader sees it. It knows turns and elements; it asks no server.

import { wordsOf } from './conversation.mjs';
import { make, MarkdownView } from './markdown.mjs';

const NEAR_END_PX = 48;

export class Log {
  #views = [];
  #isDue = false;

  // `actions`: copy(text), regenerate(), edit(), which buttons do. `element` scrolls.
  constructor(element, toEnd, actions) {
    this.element = element;
    this.actions = actions;
    this.toEnd = toEnd;
    element.addEventListener('scroll', () => this.#showToEnd(), { passive: true });
    toEnd.addEventListener('click', () => this.follow());
  }

  // Draw everything anew. `isText`: whether the turns are one text, which a model goes on with.
  show(turns, isText) {
    this.element.querySelectorAll('.turn').forEach((node) => node.remove());
    this.#views = turns.map((turn) => new TurnView(turn, isText, this.actions));
    this.element.append(...this.#views.map(({ node }) => node));
    this.#mark();
    this.follow();
  }

  // The last turn has changed: draw it before the next frame, and scroll along with it where the
  // reader is at the end.
  grow() {
    if (this.#isDue) return;
    this.#isDue = true;
    requestAnimationFrame(() => {
      this.#isDue = false;
      this.drawLast();
    });
  }

  drawLast() {
    const isAtEnd = this.#isAtEnd();
    this.#views.at(-1)?.update();
    if (isAtEnd) this.follow();
    else this.#showToEnd();
  }

  // While an answer is written, a screen reader waits for its end.
  setBusy(isBusy) {
    const isAtEnd = this.#isAtEnd();
    this.element.setAttribute('aria-busy', String(isBusy));
    this.#mark(isBusy);
    if (isAtEnd) this.follow();
  }

  follow() {
    this.element.scrollTop = this.element.scrollHeight;
    this.#showToEnd();
  }

  // Only the last turn can be written again, and not while it is written.
  #mark(isBusy = false) {
    const last = this.#views.length - 1;
    this.#views.forEach((view, at) => view.showButtons(at === last && !isBusy));
  }

  #isAtEnd() {
    const { scrollHeight, scrollTop, clientHeight } = this.element;
    return scrollHeight - scrollTop - clientHeight < NEAR_END_PX;
  }

  #showToEnd() {
    this.toEnd.hidden = this.#isAtEnd();
  }
}

class TurnView {
  constructor(turn, isText, actions) {
    this.turn = turn;
    this.copy = make('div', { className: 'buttons' });
    this.again = make('div', { className: 'buttons' });
    this.answer = make('div', { className: 'answer', dir: 'auto' });
    this.waiting = make('p', { className: 'waiting', ariaHidden: 'true' });
    this.waiting.append(make('i'), make('i'), make('i'));
    this.figures = make('p', { className: 'figures' });
    this.fault = make('div', { className: 'fault', role: 'alert' });
    const question = make('div', { className: 'question', dir: 'auto' }, turn.question);
    question.hidden = turn.question === '';
    const below = make('div', { className: 'below' }, this.figures, this.copy, this.again);
    this.node = make('article', { className: isText ? 'turn text' : 'turn' });
    this.node.append(question, this.waiting, this.answer, this.fault, below);
    this.#makeButtons(actions, isText);
    this.markdown = isText ? null : new MarkdownView(this.answer, (read) => copier(actions, read));
    this.update();
  }

  #makeButtons(actions, isText) {
    this.copy.append(copier(actions, () => this.turn.answer));
    this.regenerate = button('', () => actions.regenerate());
    const edit = button(isText ? 'Edit the text' : 'Edit question', () => actions.edit());
    edit.hidden = this.turn.question === '';
    this.again.append(this.regenerate, edit);
  }

  update() {
    const { answer, figures, fault } = this.turn;
    if (this.markdown) this.markdown.update(answer);
    else this.answer.textContent = answer;
    const isOpen = !figures && !fault;
    this.waiting.hidden = answer !== '' || !isOpen;
    this.copy.hidden = answer === '';
    const words = figures ? wordsOf(figures) : [];
    if (answer === '' && figures && figures.reason !== 'stopped') words.unshift('the model wrote nothing');
    this.figures.replaceChildren(...words.map((each) => make('span', {}, each)));
    this.regenerate.textContent = fault && answer === '' ? 'Try again' : 'Regenerate';
    this.#showFault(fault, answer);
  }

  #showFault(fault, answer) {
    this.fault.hidden = !fault;
    if (!fault) return;
    const hint = answer ? fault.hint : `${fault.hint} A message without an answer is not sent on.`;
    this.fault.replaceChildren(make('strong', {}, fault.message), make('p', {}, hint));
  }

  showButtons(isLast) {
    this.again.hidden = !isLast;
  }
}

function button(words, act) {
  const made = make('button', { type: 'button', className: 'small' }, words);
  made.addEventListener('click', act);
  return made;
}

// A button that copies what `read` returns, and says for a moment whether it could.
function copier(actions, read) {
  const made = button('Copy', async () => {
    made.textContent = (await actions.copy(read())) ? 'Copied' : 'Not copied';
    setTimeout(() => {
      made.textContent = 'Copy';
    }, 1500);
  });
  return made;
}
