// What all pictures share: the data, elements, and how figures are shown.
const read = (id) => JSON.parse(document.getElementById(id).textContent);
const report = read('report');
const lifelines = read('history');
const PAGE = report.host.page_size || 4096;
const SVG = 'http://www.w3.org/2000/svg';

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function shape(name, attributes = {}, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

// As in the tables: one decimal, in units of 1024.
function size(bytes) {
  if (bytes === null || bytes === undefined) return '–';
  if (bytes < 1024) return `${bytes} B`;
  let value = bytes;
  let unit = '';
  for (unit of ['KiB', 'MiB', 'GiB']) {
    value /= 1024;
    if (Math.round(value * 10) < 10240) break;
  }
  return `${(Math.round(value * 10) / 10).toFixed(1)} ${unit}`;
}

function seconds(ns, step = 0) {
  const decimals = step > 0 ? Math.min(6, Math.max(0, Math.ceil(-Math.log10(step / 1e9)))) : 3;
  return `${(ns / 1e9).toFixed(decimals)} s`;
}

// Names come from traced programs: what has no glyph of its own is shown by its number, as in the tables.
function printable(name) {
  return name.replace(/[\p{C}\p{Z}\p{M}\\]/gu, (c) => {
    if (c === ' ') return c;
    if (c === '\\') return '\\\\';
    return `\\u{${c.codePointAt(0).toString(16)}}`;
  });
}

// Returns round numbers in a range: multiples of 1, 2 or 5 times a power of `base` 10, or powers of two.
function ticks(lo, hi, most, binary) {
  const rough = (hi - lo) / Math.max(1, most);
  let step;
  if (binary) {
    step = 2 ** Math.ceil(Math.log2(Math.max(1, rough)));
  } else {
    const power = 10 ** Math.floor(Math.log10(rough));
    step = power * ([1, 2, 5, 10].find((factor) => factor * power >= rough) ?? 10);
  }
  const found = [];
  for (let at = Math.ceil(lo / step) * step; at <= hi; at += step) found.push(at);
  return { step, found };
}

function legend(keys) {
  const line = element('p', { class: 'keys' });
  for (const [look, name] of keys) {
    const key = shape('svg', { width: 14, height: 14, 'aria-hidden': 'true' });
    key.append(look === 'rss' ? shape('line', { x1: 0, x2: 14, y1: 7, y2: 7 }) : shape('rect', look === 'c-hollow' ? { class: look, x: 0.5, y: 0.5, width: 13, height: 13 } : { class: look, width: 14, height: 14 }));
    line.append(element('span', { class: 'key' }, key, name), ' ');
  }
  return line;
}
