// Tables that sort, and what is drawn where.
function value(row, column) {
  const cell = row.cells[column];
  if ('v' in cell.dataset) return BigInt(cell.dataset.v);
  return cell.classList.contains('n') ? null : cell.textContent;
}

function compare(a, b) {
  if (typeof a === 'string') return a.localeCompare(b, 'en', { numeric: true });
  return a < b ? -1 : Number(a > b);
}

function sort(table, column) {
  const head = table.tHead.rows[0].cells;
  const figure = head[column].matches('.n, .r');
  const was = head[column].getAttribute('aria-sort');
  const down = was === null ? figure : was === 'ascending';
  for (const cell of head) cell.removeAttribute('aria-sort');
  head[column].setAttribute('aria-sort', down ? 'descending' : 'ascending');
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => [value(row, column), row]);
  rows.sort(([a], [b]) => {
    // What is not known comes last either way.
    if (a === null || b === null) return Number(a === null) - Number(b === null);
    return down ? compare(b, a) : compare(a, b);
  });
  body.append(...rows.map(([, row]) => row));
}

for (const table of document.querySelectorAll('table.sorted')) {
  if (table.tBodies[0].rows.length < 2) continue;
  [...table.tHead.rows[0].cells].forEach((cell, column) => {
    const button = element('button', { type: 'button', title: 'sort' }, ...cell.childNodes);
    button.addEventListener('click', () => sort(table, column));
    cell.replaceChildren(button);
  });
}

// Exact figures, for who points at them.
document.addEventListener('pointerover', (event) => {
  const cell = event.target instanceof Element ? event.target.closest('td[data-v]') : null;
  if (cell && !cell.title) cell.title = BigInt(cell.dataset.v).toLocaleString('en');
});

for (const place of document.querySelectorAll('[data-draw=time]')) drawTime(place, Number(place.dataset.process));
for (const place of document.querySelectorAll('[data-draw=map]')) drawMap(place, Number(place.dataset.process));
for (const place of document.querySelectorAll('[data-draw=save]')) {
  const button = element('button', { type: 'button' }, 'Save the JSON report');
  button.addEventListener('click', () => {
    // As it was written: numbers of 64 bits do not survive being read here.
    const { textContent: text } = document.getElementById('report');
    const link = element('a', { download: 'memtrace-report.json', href: URL.createObjectURL(new Blob([text], { type: 'application/json' })) });
    link.click();
    URL.revokeObjectURL(link.href);
  });
  place.replaceChildren(button);
}

// A link to what is folded unfolds it.
const unfold = () => {
  const target = location.hash ? document.getElementById(location.hash.slice(1)) : null;
  if (target instanceof HTMLDetailsElement) target.open = true;
};
addEventListener('hashchange', unfold);
unfold();

// On paper everything is unfolded.
addEventListener('beforeprint', () => { for (const folded of document.querySelectorAll('details:not([open])')) { folded.open = true; folded.dataset.folded = ''; } });
addEventListener('afterprint', () => { for (const folded of document.querySelectorAll('details[data-folded]')) { folded.open = false; delete folded.dataset.folded; } });
