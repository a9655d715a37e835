// The region map: what is mapped, end to end by address, zoomable down to pages. Its area is bytes: a region is
// as wide as it is long, and filled from below by what is in it; where its pages lie is known, piece by piece.
function laidOut(regions, cells) {
  let offset = 0;
  let before = null;
  return regions
    .map((region, index) => ({ region, index, cells: cells[index], start: BigInt(region.start), end: BigInt(region.end) }))
    .sort((a, b) => (a.start < b.start ? -1 : 1))
    .map((item) => {
      const gap = before !== null && item.start !== before;
      const placed = { ...item, gap, lo: offset, hi: offset + Number(item.end - item.start) };
      offset = placed.hi;
      before = item.end;
      return placed;
    });
}

// Returns what a region is made of; what is not known is told apart from what is not there.
function parts({ region: { resident, live, free_resident: free, lazy_free: lazy, mapped }, cells }) {
  const swapped = cells?.swapped[cells.count] ?? 0;
  if (resident === null) return { live: 0, free: 0, lazy: 0, other: 0, swapped, unknown: mapped };
  const known = (live ?? 0) + (free ?? 0) + (lazy ?? 0);
  return { live: live ?? 0, free: free ?? 0, lazy: lazy ?? 0, other: Math.max(0, resident - known), swapped, unknown: 0 };
}
const CLASSES = ['live', 'free', 'lazy', 'other', 'swapped'];

function words({ region, cells }) {
  const name = region.name === null ? region.kind : printable(region.name);
  const figures = [`mapped ${size(region.mapped)}`, `resident ${size(region.resident)}`, `live ${size(region.live)}`];
  if (region.free_resident !== null) figures.push(`free ${size(region.free_resident)}`);
  if (region.lazy_free !== null) figures.push(`lazy free ${size(region.lazy_free)}`);
  if (cells?.moved) figures.push(`changed meanwhile: its pages are ${size(cells.resident[cells.count])} resident, ${size(cells.free[cells.count])} free`);
  return `${region.start} ${name} ${region.prot} · ${figures.join(' · ')}`;
}

// Says how to read the picture, and what it does not tell.
function notes(items, swapped) {
  const located = items.filter(({ cells }) => cells);
  const [even, moved] = [items.filter(({ region, cells }) => !cells && region.resident > 0).length, located.filter(({ cells }) => cells.moved).length];
  const said = ['Width: address space, gaps left out (dashed).'];
  if (located.length === 0) said.push('Height: the share of a region that is resident; where in the region its pages lie is not told.');
  else said.push('Height: the share of what lies there; zoomed in, each page is a column.');
  if (located.length > 0 && even > 0) said.push(`Where their pages lie is not told of ${even} regions, which are filled evenly.`);
  if (moved > 0) said.push(`${moved} regions changed while they were looked at: figures and pictures of these are of different moments.`);
  const left = (swapped ?? 0) - located.reduce((sum, { cells }) => sum + cells.swapped[cells.count], 0);
  if (left > 0) said.push(`${size(left)} are in swap of which is not told where.`);
  said.push('?: not measured. Ctrl and wheel, a double click or + zoom; dragging moves.');
  return said.join(' ');
}

function drawMap(place, index) {
  const items = laidOut(report.processes[index].regions, cellsOf(index));
  const whole = items[items.length - 1].hi;
  const [TOP, TALL, OVERVIEW] = [18, 110, 16];
  const height = TOP + TALL + 26 + OVERVIEW + 4;
  const canvas = shape('svg', { class: 'drawing', tabindex: 0, role: 'group', height,
    'aria-label': 'region map; arrow keys move and zoom, comma and full stop go from region to region, < and > from piece to piece, Enter zooms to one' });
  const output = element('output', { 'aria-live': 'polite' });
  // The region that was picked, and the piece of it: the first and the last cell.
  let [width, picked, piece] = [0, -1, null];
  const view = new View(0, whole, PAGE * 4, () => draw());
  const table = place.parentElement.querySelector('table.map-table');
  const rows = table ? [...table.tBodies[0].rows] : [];
  const rowOf = new Map(rows.map((row) => [Number(row.dataset.p.split('/').pop()), row]));

  // Returns the piece of the picture that holds a cell.
  const pieceOf = (cells, cell) => {
    const step = cells.step((view.hi - view.lo) / width);
    const from = Math.floor(Math.min(cells.count - 1, Math.max(0, cell)) / step) * step;
    return [from, Math.min(cells.count, from + step)];
  };
  const range = ({ lo, cells }, [from, to]) => cells.range(from, to).map((at) => lo + at);
  // What is picked stays where it is when keys zoom.
  view.anchor = () => {
    if (!piece) return undefined;
    const [lo, hi] = range(items[picked], piece);
    return hi > view.lo && lo < view.hi ? (lo + hi) / 2 : undefined;
  };
  const pick = (at, cell) => {
    picked = Math.min(items.length - 1, Math.max(0, at));
    const item = items[picked];
    piece = cell !== undefined && item.cells ? pieceOf(item.cells, cell) : null;
    for (const row of rows) row.classList.toggle('chosen', row === rowOf.get(item.index));
    const [lo, hi] = piece ? range(item, piece) : [item.lo, item.hi];
    if (hi < view.lo || lo > view.hi || (piece && (lo < view.lo || hi > view.hi))) view.show(lo - (view.hi - view.lo) / 2, lo + (view.hi - view.lo) / 2);
    else draw();
  };
  // Shows a region, or of a region that is shown a piece and what is beside it.
  const zoomTo = (at, cell) => {
    const { lo, hi, cells } = items[at];
    const isShown = (view.hi - view.lo) <= (hi - lo) * 1.1;
    pick(at, cell);
    if (piece && isShown) {
      const [from, to] = range(items[at], piece);
      view.show((from + to) / 2 - cells.bytes * 8, (from + to) / 2 + cells.bytes * 8);
      pick(at, cell);
    } else {
      view.show(lo - (hi - lo) * 0.03, hi + (hi - lo) * 0.03);
    }
  };
  // Goes to the next piece; where a region ends, or where none of its pieces is known, to the next region.
  const step = (by) => {
    const at = picked < 0 ? items.findIndex(({ hi }) => hi > view.lo) : picked;
    const { lo, cells } = items[at];
    if (!cells) { pick(at + by); return; }
    if (!piece) { pick(at, ((by > 0 ? view.lo : view.hi) - lo) / cells.bytes); return; }
    const [from, to] = pieceOf(cells, piece[0]);
    const next = by > 0 ? Math.max(to, piece[1]) : from - 1;
    if (next < 0 || next >= cells.count) pick(at + by);
    else pick(at, next);
  };
  const control = controls(view, canvas, () => [0, width], [
    [',', '‹', 'the region before (,)', () => pick(picked < 0 ? items.length - 1 : picked - 1)],
    ['.', '›', 'the next region (.)', () => pick(picked + 1)],
    ['<', '«', 'the piece before (<)', () => step(-1)],
    ['>', '»', 'the next piece (>)', () => step(1)],
    ['Enter', 'zoom to it', 'zoom to the region, then to the piece (Enter)', () => { if (picked >= 0) zoomTo(picked, piece?.[0]); }],
  ]);
  control.tools.append(output);

  // Returns the region that is pointed at, and the cell.
  const found = (event) => {
    const at = control.at(event);
    const index = items.findIndex(({ lo, hi }) => at >= lo && at < hi);
    const { lo, cells } = items[index] ?? {};
    return [index, cells ? (at - lo) / cells.bytes : undefined];
  };
  let hovered = null;
  canvas.addEventListener('pointermove', (event) => {
    if (event.buttons) return;
    hovered = found(event);
    tell();
  });
  canvas.addEventListener('pointerleave', () => { hovered = null; tell(); });
  canvas.addEventListener('click', (event) => {
    const [at, cell] = found(event);
    if (at >= 0 && !control.dragged()) pick(at, cell);
  });

  function tell() {
    const [at, cell] = hovered && hovered[0] >= 0 ? hovered : [picked, piece?.[0]];
    if (at < 0) {
      output.textContent = `shown: ${size(view.hi - view.lo)} of ${size(whole)} mapped in ${items.length} regions`;
      return;
    }
    const item = items[at];
    let text = words(item);
    if (cell !== undefined && item.cells) {
      const [from, to] = at === picked && piece && !hovered ? piece : pieceOf(item.cells, cell);
      const [lo, hi] = item.cells.range(from, to);
      text = `${pieceWords(item.start + BigInt(lo), hi - lo, item.cells.parts(from, to))} · in ${text}`;
    }
    output.textContent = text;
  }

  // Draws a column of classes into `group`; `bytes` is what it stands for.
  function column(group, x0, x1, y, tall, sum, bytes) {
    let below = y + tall;
    for (const name of CLASSES) {
      if (!(sum[name] > 0)) continue;
      const part = Math.min(below - y, Math.max(1, (sum[name] / bytes) * tall));
      below -= part;
      group.append(shape('rect', { class: `c-${name}`, x: x0, y: below, width: x1 - x0, height: part }));
    }
  }

  // Draws where nothing is yet.
  function ground(x0, x1, y, tall, unknown) {
    canvas.append(shape('rect', { class: 'c-reserved', x: x0, y, width: x1 - x0, height: tall }));
    if (unknown > 0 && x1 - x0 > 9) canvas.append(shape('text', { class: 'dim', x: (x0 + x1) / 2, y: y + tall / 2 + 4, 'text-anchor': 'middle' }, '?'));
  }

  // Draws the pieces of a region that lie in a range, equal neighbours as one.
  function pieces({ lo: start, hi: end, cells }, lo, hi, y, tall, x) {
    const group = shape('g', { class: 'cells' });
    const step = cells.step((hi - lo) / width);
    const cell = (at) => Math.floor((at - start) / cells.bytes / step) * step;
    const last = Math.min(cells.count, cell(Math.min(hi, end)) + step);
    let run = null;
    const flush = () => { if (run) column(group, x(run.lo), x(run.hi), y, tall, run.sum, run.bytes); };
    for (let at = cell(Math.max(lo, start)); at < last; at += step) {
      const to = Math.min(cells.count, at + step);
      const [from, until] = cells.range(at, to);
      const [sum, bytes] = [cells.parts(at, to), until - from];
      if (run && run.bytes === bytes && CLASSES.every((name) => run.sum[name] === sum[name])) {
        run.hi = Math.min(hi, start + until);
        continue;
      }
      flush();
      run = { lo: Math.max(lo, start + from), hi: Math.min(hi, start + until), sum, bytes };
    }
    flush();
    canvas.append(group);
  }

  // Draws the regions of a range; those that are too narrow to be seen become one column.
  function strip(lo, hi, y, tall, each) {
    const x = (at) => ((at - lo) / (hi - lo)) * width;
    let run = null;
    const flush = () => {
      if (!run) return;
      const x1 = Math.max(run.x1, run.x0 + 0.75);
      ground(run.x0, x1, y, tall, run.unknown);
      column(canvas, run.x0, x1, y, tall, run, run.bytes);
      run = null;
    };
    for (const item of items) {
      if (item.hi <= lo || item.lo >= hi) continue;
      const [x0, x1] = [Math.max(0, x(item.lo)), Math.min(width, x(item.hi))];
      const sum = parts(item);
      const bytes = item.hi - item.lo;
      if (x1 - x0 >= 1) {
        flush();
        ground(x0, x1, y, tall, sum.unknown);
        if (item.cells) pieces(item, lo, hi, y, tall, x);
        else column(canvas, x0, x1, y, tall, sum, bytes);
        each?.(item, x0, x1);
        continue;
      }
      if (run && x1 - run.x0 >= 1) flush();
      run ??= { x0, x1, bytes: 0, live: 0, free: 0, lazy: 0, other: 0, swapped: 0, unknown: 0 };
      run.x1 = x1;
      run.bytes += bytes;
      for (const name of [...CLASSES, 'unknown']) run[name] += sum[name];
    }
    flush();
  }

  function draw() {
    width = Math.max(260, place.clientWidth);
    canvas.setAttribute('viewBox', `0 0 ${width} ${height}`);
    canvas.replaceChildren();
    const pageWide = (PAGE / (view.hi - view.lo)) * width;
    let labelled = -Infinity;
    const labels = [];
    strip(view.lo, view.hi, TOP, TALL, (item, x0, x1) => {
      if (pageWide >= 6) {
        const scale = width / (view.hi - view.lo);
        const from = item.lo + Math.ceil(Math.max(0, view.lo - item.lo) / PAGE) * PAGE;
        for (let at = from; at < Math.min(item.hi, view.hi); at += PAGE) {
          const x = (at - view.lo) * scale;
          labels.push(shape('line', { class: 'page', x1: x, x2: x, y1: TOP, y2: TOP + TALL }));
        }
      }
      labels.push(shape('line', { class: item.gap ? 'gap' : 'edge', x1: x0, x2: x0, y1: TOP - (item.gap ? 6 : 0), y2: TOP + TALL }));
      const name = item.region.name === null ? item.region.kind : printable(item.region.name);
      const room = Math.floor((x1 - x0 - 8) / 6.6);
      if (room >= 4) {
        const text = name.length > room ? `…${name.slice(name.length - room + 1)}` : name;
        labels.push(shape('text', { class: 'in', x: x0 + 4, y: TOP + 14 }, text));
      }
      if (x0 >= labelled && x0 + 100 <= width) {
        const address = item.start + BigInt(Math.floor(Math.max(0, view.lo - item.lo) / PAGE) * PAGE);
        labels.push(shape('text', { class: 'dim', x: x0, y: TOP + TALL + 14 }, `0x${address.toString(16)}`));
        labelled = x0 + 112;
      }
    });
    canvas.append(...labels, shape('rect', { class: 'frame', x: 0.5, y: TOP, width: width - 1, height: TALL }));
    if (picked >= 0) {
      const item = items[picked];
      for (const ends of piece ? [[item.lo, item.hi], range(item, piece)] : [[item.lo, item.hi]]) {
        const [x0, x1] = ends.map((at) => ((at - view.lo) / (view.hi - view.lo)) * width);
        if (x1 < 0 || x0 > width) continue;
        canvas.append(shape('rect', { class: 'picked', x: Math.max(-2, x0), y: TOP, width: Math.max(2, Math.min(width + 2, x1) - Math.max(-2, x0)), height: TALL }));
      }
    }
    const y = TOP + TALL + 24;
    strip(0, whole, y, OVERVIEW);
    canvas.append(shape('rect', { class: 'window', x: 1 + (view.lo / whole) * (width - 2), y: y - 1, width: Math.max(3, ((view.hi - view.lo) / whole) * (width - 2)), height: OVERVIEW + 2 }));
    tell();
  }

  for (const [at, item] of items.entries()) {
    const cell = rowOf.get(item.index)?.cells[0];
    if (!cell) continue;
    const button = element('button', { type: 'button', title: 'show it in the map' }, ...cell.childNodes);
    button.addEventListener('click', () => { zoomTo(at); canvas.scrollIntoView({ block: 'nearest' }); });
    cell.replaceChildren(button);
  }
  const keys = [['c-live', 'live'], ['c-free', 'free'], ['c-lazy', 'lazy free'], ['c-other', 'resident, not told apart'], ['c-swapped', 'in swap'], ['c-reserved', 'reserved: no frame']];
  place.replaceChildren(legend(keys), canvas, control.tools, element('p', { class: 'note' }, notes(items, report.processes[index].memory.swapped)));
  draw();
  new ResizeObserver(() => { if (place.clientWidth !== width) draw(); }).observe(place);
}
