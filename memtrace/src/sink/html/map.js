// The region map: what is mapped, end to end by address, zoomable down to pages. Its area is bytes: a region is
// as wide as it is long, and filled from below by what is resident in it.
const PAGE = report.host.page_size || 4096;

function laidOut(regions) {
  let offset = 0;
  let before = null;
  return regions
    .map((region, index) => ({ region, index, start: BigInt(region.start), end: BigInt(region.end) }))
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
function parts({ resident, live, free_resident: free, lazy_free: lazy, mapped }) {
  if (resident === null) return { live: 0, free: 0, lazy: 0, other: 0, unknown: mapped };
  const told = (live ?? 0) + (free ?? 0) + (lazy ?? 0);
  return { live: live ?? 0, free: free ?? 0, lazy: lazy ?? 0, other: Math.max(0, resident - told), unknown: 0 };
}

function words(region) {
  const name = region.name === null ? region.kind : printable(region.name);
  const figures = [`mapped ${size(region.mapped)}`, `resident ${size(region.resident)}`, `live ${size(region.live)}`];
  if (region.free_resident !== null) figures.push(`free ${size(region.free_resident)}`);
  if (region.lazy_free !== null) figures.push(`lazy free ${size(region.lazy_free)}`);
  return `${region.start} ${name} ${region.prot} · ${figures.join(' · ')}`;
}

function drawMap(place, index) {
  const items = laidOut(report.processes[index].regions);
  const whole = items[items.length - 1].hi;
  const [TOP, TALL, OVERVIEW] = [18, 110, 16];
  const height = TOP + TALL + 26 + OVERVIEW + 4;
  const canvas = shape('svg', { class: 'drawing', tabindex: 0, role: 'group', height,
    'aria-label': 'region map; arrow keys move and zoom, comma and full stop go from region to region, Enter zooms to one' });
  const output = element('output', { 'aria-live': 'polite' });
  let [width, picked] = [0, -1];
  const view = new View(0, whole, PAGE * 4, () => draw());
  const table = place.parentElement.querySelector('table.map-table');
  const rows = table ? [...table.tBodies[0].rows] : [];
  const rowOf = new Map(rows.map((row) => [Number(row.dataset.p.split('/').pop()), row]));

  const pick = (at) => {
    picked = Math.min(items.length - 1, Math.max(0, at));
    const { lo, hi, index: region } = items[picked];
    for (const row of rows) row.classList.toggle('chosen', row === rowOf.get(region));
    if (hi < view.lo || lo > view.hi) view.show(lo - (view.hi - view.lo) / 2, lo + (view.hi - view.lo) / 2);
    else draw();
  };
  const zoomTo = (at) => {
    pick(at);
    const { lo, hi } = items[picked];
    view.show(lo - (hi - lo) * 0.03, hi + (hi - lo) * 0.03);
  };
  const control = controls(view, canvas, () => [0, width], [
    [',', '‹', 'the region before (,)', () => pick(picked < 0 ? items.length - 1 : picked - 1)],
    ['.', '›', 'the next region (.)', () => pick(picked + 1)],
    ['Enter', 'zoom to it', 'zoom to the region (Enter)', () => { if (picked >= 0) zoomTo(picked); }],
  ]);
  control.tools.append(output);

  const found = (event) => {
    const at = control.at(event);
    return items.findIndex(({ lo, hi }) => at >= lo && at < hi);
  };
  let hovered = -1;
  canvas.addEventListener('pointermove', (event) => {
    if (event.buttons) return;
    hovered = found(event);
    tell();
  });
  canvas.addEventListener('pointerleave', () => { hovered = -1; tell(); });
  canvas.addEventListener('click', (event) => {
    const at = found(event);
    if (at >= 0 && !control.dragged()) pick(at);
  });

  function tell() {
    const at = hovered >= 0 ? hovered : picked;
    const span = `${size(view.hi - view.lo)} of ${size(whole)} mapped in ${items.length} regions`;
    output.textContent = at >= 0 ? words(items[at].region) : `shown: ${span}`;
  }

  // Draws a column of classes; `bytes` is what it stands for.
  function column(x0, x1, y, tall, sum, bytes) {
    const wide = x1 - x0;
    canvas.append(shape('rect', { class: 'c-reserved', x: x0, y, width: wide, height: tall }));
    if (sum.unknown > 0) canvas.append(shape('text', { class: 'dim', x: (x0 + x1) / 2, y: y + tall / 2 + 4, 'text-anchor': 'middle' }, wide > 9 ? '?' : ''));
    let below = y + tall;
    for (const name of ['live', 'free', 'lazy', 'other']) {
      if (!(sum[name] > 0)) continue;
      const part = Math.min(below - y, Math.max(1, (sum[name] / bytes) * tall));
      below -= part;
      canvas.append(shape('rect', { class: `c-${name}`, x: x0, y: below, width: wide, height: part }));
    }
  }

  // Draws the regions of a range; those that are too narrow to be seen become one column.
  function strip(lo, hi, y, tall, each) {
    const x = (at) => ((at - lo) / (hi - lo)) * width;
    let run = null;
    const flush = () => { if (run) column(run.x0, Math.max(run.x1, run.x0 + 0.75), y, tall, run, run.bytes); run = null; };
    for (const item of items) {
      if (item.hi <= lo || item.lo >= hi) continue;
      const [x0, x1] = [Math.max(0, x(item.lo)), Math.min(width, x(item.hi))];
      const sum = parts(item.region);
      const bytes = item.hi - item.lo;
      if (x1 - x0 >= 1) {
        flush();
        column(x0, x1, y, tall, sum, bytes);
        each?.(item, x0, x1);
        continue;
      }
      if (run && x1 - run.x0 >= 1) flush();
      run ??= { x0, x1, bytes: 0, live: 0, free: 0, lazy: 0, other: 0, unknown: 0 };
      run.x1 = x1;
      run.bytes += bytes;
      for (const name of ['live', 'free', 'lazy', 'other', 'unknown']) run[name] += sum[name];
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
      const { lo, hi } = items[picked];
      const [x0, x1] = [lo, hi].map((at) => ((at - view.lo) / (view.hi - view.lo)) * width);
      canvas.append(shape('rect', { class: 'picked', x: Math.max(-2, x0), y: TOP, width: Math.max(2, Math.min(width + 2, x1) - Math.max(-2, x0)), height: TALL }));
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
  const keys = [['c-live', 'live'], ['c-free', 'free'], ['c-lazy', 'lazy free'], ['c-other', 'resident, not told apart'], ['c-reserved', 'reserved: no frame']];
  const note = element('p', { class: 'note' }, 'Width: address space, gaps left out (dashed). Height: the share of a region that is resident; ' +
    'where in the region its pages lie is not told. ?: not measured. Ctrl and wheel, a double click or + zoom; dragging moves.');
  const { swapped } = report.processes[index].memory;
  if (swapped > 0) note.append(` ${size(swapped)} are in swap; in which regions is not told.`);
  place.replaceChildren(legend(keys), canvas, control.tools, note);
  draw();
  new ResizeObserver(() => { if (place.clientWidth !== width) draw(); }).observe(place);
}
