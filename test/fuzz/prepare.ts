/** What `make fuzz` needs beyond what `make test` does: clang with libFuzzer and its sanitizers, from Debian (root). */
import { ensureInstalled } from '../peers/lib/apt.ts';

await ensureInstalled('clang-14', 'libclang-rt-14-dev', 'libfuzzer-14-dev');
