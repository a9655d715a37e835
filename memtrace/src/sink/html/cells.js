// Where in a region its pages lie: cells of equal length from its first byte on, and what each holds.
const told = read('cells');

class Cells {
  constructor({ order, resident, free, swapped }, region) {
    this.region = region;
    this.pages = 2 ** order;
    this.bytes = this.pages * PAGE;
    this.count = Math.ceil(region.mapped / this.bytes);
    this.resident = this.sums(resident, PAGE);
    this.free = this.sums(free, 1);
    this.swapped = this.sums(swapped, PAGE);
  }

  // Returns the bytes before each cell; `runs` are counts of neighbours and the figure that each of them has.
  sums(runs, unit) {
    const sums = new Float64Array(this.count + 1);
    let at = 0;
    for (let pair = 0; pair < runs.length; pair += 2) {
      const end = Math.min(this.count, at + runs[pair]);
      for (; at < end; at += 1) sums[at + 1] = sums[at] + runs[pair + 1] * unit;
    }
    return sums.fill(sums[at], at);
  }

  // Returns how many cells are one piece of the picture where a pixel is so many bytes: pieces are no narrower.
  step(pixel) { return 2 ** Math.max(0, Math.ceil(Math.log2(pixel / this.bytes))); }

  // Returns what is in some cells, told apart as far as the region is: where lazily free pages lie is not known.
  parts(from, to) {
    const [resident, free, swapped] = [this.resident, this.free, this.swapped].map((sums) => sums[to] - sums[from]);
    const found = { live: 0, free: Math.min(free, resident), lazy: 0, other: 0, swapped, unknown: 0 };
    const rest = this.region.lazy_free > 0 ? (this.region.live > 0 ? 'other' : 'lazy') : 'live';
    found[rest] = resident - found.free;
    return found;
  }

  // Returns where cells begin and end, in bytes behind the first of the region.
  range(from, to) { return [from * this.bytes, Math.min(to * this.bytes, this.region.mapped)]; }

  // Tells whether what was read of the region as a whole says something else: the process went on in between.
  get moved() {
    return this.resident[this.count] !== this.region.resident || this.free[this.count] !== (this.region.free_resident ?? 0);
  }
}

// Returns the cells of the regions of a process, `undefined` for those of which none are known.
function cellsOf(index) {
  const { regions } = report.processes[index];
  return regions.map((region, at) => {
    const cells = told[index]?.[at];
    return cells ? new Cells(cells, region) : undefined;
  });
}

// Says what is in a piece of a region.
function pieceWords(start, bytes, parts) {
  const names = [['live', 'live'], ['free', 'free'], ['lazy', 'lazy free'], ['other', 'resident'], ['swapped', 'in swap']];
  const found = names.filter(([part]) => parts[part] > 0).map(([part, name]) => [name, parts[part]]);
  const none = bytes - found.reduce((sum, [, part]) => sum + part, 0);
  if (none > 0) found.push(['no frame', none]);
  const all = found.map(([name, part]) => (part === bytes ? name : `${name} ${size(part)}`)).join(', ');
  return `0x${start.toString(16)} ${bytes === PAGE ? 'page' : `and ${size(bytes)}`}: ${all}`;
}
