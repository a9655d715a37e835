// Classes of memory over time, and below it what left by each path, on one axis of time.
const PATHS = {
  munmap: 'munmap', brk: 'heap trim (brk)', dont_need: 'MADV_DONTNEED', free: 'MADV_FREE', remove: 'MADV_REMOVE',
  mremap: 'mremap', overmap: 'MAP_FIXED over', exec: 'exec', exit: 'exit', pressure: 'pressure', other: 'other',
};

// Returns moments with what was resident by class; `other` is what was not told apart.
function moments(process, lifeline, end) {
  const of = (time, { resident, live, free_resident: free, lazy_free: lazy }) => {
    const told = (live ?? 0) + (free ?? 0) + (lazy ?? 0);
    return { time, resident, live, free, lazy, other: Math.max(0, resident - told) };
  };
  const walked = lifeline.classes.steps.map(([, at]) => of(at.time_ns, at));
  const points = walked.length > 0
    ? walked
    : lifeline.resident.steps.map(([, at]) => of(at.time_ns, { resident: at.bytes }));
  const { memory } = process;
  const freed = memory.freed_not_reclaimed;
  // Of a process that exited nobody knows what was free in the end.
  if (memory.resident !== null && points.length > 0 && (walked.length === 0 || freed.allocator !== null)) {
    const known = walked.length > 0 ? { live: memory.live, free_resident: freed.allocator, lazy_free: freed.lazy_free } : {};
    points.push(of(end, { resident: memory.resident, ...known }));
  }
  points.sort((a, b) => a.time - b.time);
  return { points, walked: walked.length > 0 };
}

function drawTime(place, index) {
  const lifeline = lifelines[index];
  const process = report.processes[index];
  const exit = lifeline.marks.findLast((mark) => 'exit' in mark.what);
  const start = report.window.start_ns;
  const end = Math.max(start + 1, exit ? exit.time_ns : report.window.end_ns);
  const { points, walked } = moments(process, lifeline, end);
  const line = lifeline.resident.steps.map(([, at]) => [at.time_ns, at.bytes]);
  const steps = lifeline.left.steps;
  const last = Math.max(end, ...steps.slice(-1).map(([time]) => time + lifeline.left.step_ns));
  const lanes = Object.keys(PATHS).filter((path) => steps.some(([, left]) => path in left));
  const sums = Object.fromEntries(lanes.map((path) => [path, steps.reduce((sum, [, left]) => sum + (left[path]?.zapped ?? 0), 0)]));
  const classes = [['live', 'live'], ['free', 'free in allocators'], ['lazy', 'lazy free'], ['other', walked ? 'not told apart' : 'resident']]
    .filter(([name]) => points.some((point) => point[name] > 0));
  const keys = classes.map(([name, text]) => [`c-${name}`, text]);
  if (walked && line.length > 1) keys.push(['rss', 'resident']);
  if (lanes.length > 0) keys.push(['c-freed', 'left and freed in the call'], ['c-hollow', 'left, and freed late or kept elsewhere']);

  const [LANE, TOP] = [30, 18];
  const AREA = points.length > 0 ? 190 : 0;
  const height = TOP + AREA + 14 + lanes.length * LANE + 24;
  const canvas = shape('svg', { class: 'drawing', tabindex: 0, role: 'group', height,
    'aria-label': 'memory over time; arrow keys move and zoom, comma and full stop go from one moment to the next' });
  const output = element('output', { 'aria-live': 'polite' });
  let [width, left] = [0, 0];
  let cursor = null;
  const view = new View(start, last, 1000, () => draw());
  const x = (time) => left + ((time - view.lo) / (view.hi - view.lo)) * (width - left - 10);
  const stops = [...new Set([...points.map((point) => point.time), ...steps.map(([time]) => time)])].sort((a, b) => a - b);
  const stop = (by) => {
    const now = cursor ?? (by > 0 ? -Infinity : Infinity);
    const next = by > 0 ? stops.find((time) => time > now) : stops.findLast((time) => time < now);
    if (next === undefined) return;
    if (next < view.lo || next > view.hi) view.show(next - (view.hi - view.lo) / 2, next + (view.hi - view.lo) / 2);
    point(next);
  };
  const control = controls(view, canvas, () => [left, width - 10], [
    [',', '‹', 'the moment before (,)', () => stop(-1)],
    ['.', '›', 'the next moment (.)', () => stop(1)],
  ]);
  control.tools.append(output);

  const tell = () => {
    if (cursor === null) { output.textContent = `${seconds(view.lo - start)} to ${seconds(view.hi - start)}`; return; }
    const before = points.findLast((at) => at.time <= cursor);
    const parts = [`at ${seconds(cursor - start)}`];
    if (before) {
      parts.push(`resident ${size(before.resident)}`);
      if (walked) for (const [name, text] of classes) parts.push(`${text} ${size(before[name])}`);
    }
    const near = steps.find(([time]) => cursor >= time && cursor < time + lifeline.left.step_ns);
    for (const [path, by] of Object.entries(near?.[1] ?? {})) {
      parts.push(`${PATHS[path] ?? path}: ${by.calls} × , ${size(by.zapped)} left, ${size(by.freed)} freed`.replace(' × ,', ' ×,'));
    }
    output.textContent = parts.join(' · ');
  };
  const point = (time) => { cursor = time; draw(); };
  canvas.addEventListener('pointermove', (event) => { if (!event.buttons) point(Math.min(last, Math.max(start, control.at(event)))); });
  canvas.addEventListener('pointerleave', () => point(null));

  function drawClasses() {
    const shown = points.filter((at, i) => (points[i + 1]?.time ?? at.time) >= view.lo && (points[i - 1]?.time ?? at.time) <= view.hi);
    const peak = Math.max(1, ...shown.map((at) => at.resident), ...line.filter(([time]) => time >= view.lo && time <= view.hi).map(([, bytes]) => bytes));
    const y = (bytes) => TOP + AREA - (bytes / (peak * 1.05)) * AREA;
    for (const bytes of ticks(0, peak, 4, true).found) {
      canvas.append(shape('line', { class: 'axis', x1: left, x2: width - 10, y1: y(bytes), y2: y(bytes) }));
      canvas.append(shape('text', { class: 'dim', x: left - 6, y: y(bytes) + 4, 'text-anchor': 'end' }, bytes === 0 ? '0' : size(bytes)));
    }
    const clip = shape('svg', { x: left, y: 0, width: Math.max(0, width - left - 10), height, overflow: 'hidden' });
    const under = shown.map(() => 0);
    for (const [name] of classes) {
      const low = shown.map((at, i) => `${(x(at.time) - left).toFixed(1)},${y(under[i]).toFixed(1)}`);
      shown.forEach((at, i) => { under[i] += at[name] ?? 0; });
      const high = shown.map((at, i) => `${(x(at.time) - left).toFixed(1)},${y(under[i]).toFixed(1)}`);
      if (shown.length > 0) clip.append(shape('polygon', { class: `c-${name}`, points: [...high, ...low.reverse()].join(' ') }));
    }
    const path = line.map(([time, bytes]) => `${(x(time) - left).toFixed(1)},${y(bytes).toFixed(1)}`);
    if (path.length > 1) clip.append(shape('polyline', { class: 'rss', points: path.join(' ') }));
    canvas.append(clip);
    // When its heaps were looked at: in between nothing is known but what was resident.
    if (walked) for (const { time } of points) if (time >= view.lo && time <= view.hi) canvas.append(shape('line', { class: 'look', x1: x(time), x2: x(time), y1: TOP + AREA, y2: TOP + AREA + 5 }));
  }

  function drawLanes(top) {
    const BIN = 4;
    const bins = new Map(lanes.map((path) => [path, new Map()]));
    let peak = 1;
    for (const [time, by] of steps) {
      if (time + lifeline.left.step_ns < view.lo || time > view.hi) continue;
      const bin = Math.floor((x(Math.max(time, view.lo)) - left) / BIN);
      for (const [path, { zapped, freed }] of Object.entries(by)) {
        const sum = bins.get(path)?.get(bin) ?? { zapped: 0, freed: 0 };
        sum.zapped += zapped ?? 0;
        sum.freed += freed ?? 0;
        bins.get(path)?.set(bin, sum);
        peak = Math.max(peak, sum.zapped);
      }
    }
    lanes.forEach((path, lane) => {
      const base = top + (lane + 1) * LANE - 4;
      canvas.append(shape('line', { class: 'axis', x1: left, x2: width - 10, y1: base, y2: base }));
      canvas.append(shape('text', { x: left - 6, y: base - 12, 'text-anchor': 'end' }, PATHS[path]));
      canvas.append(shape('text', { class: 'dim', x: left - 6, y: base, 'text-anchor': 'end' }, size(sums[path])));
      for (const [bin, { zapped, freed }] of bins.get(path)) {
        const tall = zapped > 0 ? Math.max(2, (zapped / peak) * (LANE - 6)) : 0;
        const solid = zapped > 0 ? tall * Math.min(1, freed / zapped) : 0;
        const at = { x: left + bin * BIN, width: BIN };
        if (tall > solid) canvas.append(shape('rect', { class: 'c-hollow', x: at.x + 0.5, y: base - tall + 0.5, width: BIN - 1, height: Math.max(1, tall - solid - 0.5) }));
        if (solid > 0) canvas.append(shape('rect', { ...at, class: 'c-freed', y: base - solid, height: solid }));
      }
    });
  }

  function drawMarks(bottom) {
    let free = -Infinity;
    for (const { time_ns: time, what } of lifeline.marks) {
      if (time < view.lo || time > view.hi || 'fork' in what) continue;
      const text = 'exec' in what ? 'exec' : `exit ${what.exit}`;
      const at = x(time);
      canvas.append(shape('line', { class: 'mark', x1: at, x2: at, y1: TOP - 4, y2: bottom }));
      if (at < free) continue;
      const right = at > width - 60;
      canvas.append(shape('text', { class: 'dim', x: at, y: 11, 'text-anchor': right ? 'end' : 'start' }, text));
      free = at + 40;
    }
  }

  function draw() {
    width = Math.max(260, place.clientWidth);
    left = width < 520 ? 96 : 118;
    canvas.setAttribute('viewBox', `0 0 ${width} ${height}`);
    canvas.replaceChildren();
    if (points.length > 0) drawClasses();
    const top = TOP + AREA + 10;
    drawLanes(top);
    const bottom = top + lanes.length * LANE;
    drawMarks(bottom);
    const { step, found } = ticks(view.lo - start, view.hi - start, (width - left) / 90, false);
    for (const at of found) {
      canvas.append(shape('line', { class: 'axis', x1: x(start + at), x2: x(start + at), y1: bottom, y2: bottom + 4 }));
      canvas.append(shape('text', { class: 'dim', x: x(start + at), y: bottom + 17, 'text-anchor': 'middle' }, seconds(at, step)));
    }
    if (cursor !== null && cursor >= view.lo && cursor <= view.hi) {
      canvas.append(shape('line', { class: 'cursor', x1: x(cursor), x2: x(cursor), y1: TOP, y2: bottom }));
    }
    tell();
  }

  place.replaceChildren(legend(keys), canvas, control.tools);
  if (walked) place.append(element('p', { class: 'note' }, `Its heaps were looked at ${points.length} times, at the ticks; in between the areas are drawn straight.`));
  draw();
  new ResizeObserver(() => { if (place.clientWidth !== width) draw(); }).observe(place);
}
