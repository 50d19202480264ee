/**
 * A set that costs one word while it holds one thing: most SPIFFE IDs name one entry and have no
 * children, and there are a hundred thousand of them.
 */
export type Few<T extends object> = undefined | T | Set<T>

const NONE: readonly never[] = []

export function withMember<T extends object>(few: Few<T>, member: T): Few<T> {
  if (few === undefined) return member
  if (few instanceof Set) return few.add(member)
  return few === member ? few : new Set([few, member])
}

export function withoutMember<T extends object>(few: Few<T>, member: T): Few<T> {
  if (few instanceof Set) {
    few.delete(member)
    return few.size === 0 ? undefined : few
  }
  return few === member ? undefined : few
}

export function membersOf<T extends object>(few: Few<T>): Iterable<T> {
  if (few === undefined) return NONE
  return few instanceof Set ? few : [few]
}
