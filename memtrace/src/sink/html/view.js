// A range that buttons, keys, the wheel and dragging move and zoom.
class View {
  constructor(lo, hi, smallest, changed) {
    Object.assign(this, { first: lo, last: hi, lo, hi, smallest: Math.min(smallest, hi - lo), changed });
  }

  show(lo, hi) {
    const whole = this.last - this.first;
    const span = Math.min(whole, Math.max(this.smallest, hi - lo));
    const middle = (lo + hi) / 2;
    this.lo = Math.min(Math.max(this.first, middle - span / 2), this.last - span);
    this.hi = this.lo + span;
    this.changed();
  }

  all() { this.show(this.first, this.last); }
  pan(part) { const by = (this.hi - this.lo) * part; this.show(this.lo + by, this.hi + by); }

  // Zooms so that what is at `anchor` stays where it is: what the picture says, else the middle.
  zoom(factor, anchor = this.anchor?.() ?? (this.lo + this.hi) / 2) {
    const span = Math.min(this.last - this.first, Math.max(this.smallest, (this.hi - this.lo) * factor));
    const lo = anchor - ((anchor - this.lo) / (this.hi - this.lo)) * span;
    this.show(lo, lo + span);
  }

  get isAll() { return this.hi - this.lo >= this.last - this.first; }
}

// Makes the buttons of a view, and lets keys and the pointer move it on `canvas`. `plot` returns where on
// the canvas the range begins and ends; `more` are further keys: [key, label, title, what they do].
function controls(view, canvas, plot, more = []) {
  const tools = element('div', { class: 'tools', role: 'toolbar', 'aria-label': 'view' });
  const buttons = [
    ['ArrowLeft', '◀', 'to the left (←)', () => view.pan(-0.25)],
    ['ArrowRight', '▶', 'to the right (→)', () => view.pan(0.25)],
    ['+', '+', 'zoom in (+ or ↑)', () => view.zoom(0.5)],
    ['-', '−', 'zoom out (− or ↓)', () => view.zoom(2)],
    ['Home', 'all', 'show all (Home)', () => view.all()],
    ...more,
  ];
  const keys = new Map();
  for (const [key, label, title, act] of buttons) {
    const button = element('button', { type: 'button', title, 'aria-label': title, 'data-key': key }, label);
    button.addEventListener('click', act);
    tools.append(button);
    keys.set(key, act);
  }
  keys.set('ArrowUp', keys.get('+')).set('=', keys.get('+')).set('ArrowDown', keys.get('-')).set('0', keys.get('Home'));
  canvas.addEventListener('keydown', (event) => {
    const act = event.ctrlKey || event.metaKey || event.altKey ? undefined : keys.get(event.key);
    if (!act) return;
    event.preventDefault();
    act();
  });
  const at = (event) => {
    const [from, to] = plot();
    const box = canvas.getBoundingClientRect();
    return view.lo + ((event.clientX - box.left - from) / (to - from)) * (view.hi - view.lo);
  };
  canvas.addEventListener('wheel', (event) => {
    // Without a key the wheel scrolls the page.
    if (!event.ctrlKey && !event.shiftKey) return;
    event.preventDefault();
    const turned = event.deltaY || event.deltaX;
    view.zoom(turned > 0 ? 1.25 : 0.8, at(event));
  }, { passive: false });
  let drag = null;
  canvas.addEventListener('pointerdown', (event) => {
    if (event.button === 0) drag = { x: event.clientX, lo: view.lo, hi: view.hi, moved: false };
  });
  canvas.addEventListener('pointermove', (event) => {
    if (!drag || !(event.buttons & 1)) { drag = null; return; }
    const [from, to] = plot();
    const by = ((drag.x - event.clientX) / (to - from)) * (drag.hi - drag.lo);
    if (Math.abs(drag.x - event.clientX) > 3 && !view.isAll) {
      drag.moved = true;
      view.show(drag.lo + by, drag.hi + by);
    }
  });
  canvas.addEventListener('dblclick', (event) => view.zoom(0.25, at(event)));
  return { tools, at, dragged: () => drag !== null && drag.moved };
}
