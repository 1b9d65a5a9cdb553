/** What a request that fails is answered with: Linux's numbers, which the protocol leaves to the back-end. */

export const ENOENT = 2;
export const EEXIST = 17;
export const EINVAL = 22;
export const ENOSPC = 28;
export const EOPNOTSUPP = 95;
