/**
 * `@peculiar/x509` resolves its algorithms through a container that refuses to load without the
 * Reflect metadata proposal. It asks for no metadata of the classes we use, so answering "none" will
 * do, and spares a dependency.
 */
const none = () => undefined
Object.assign(Reflect, {
  getMetadata: none,
  getOwnMetadata: none,
  defineMetadata: none,
  hasOwnMetadata: () => false,
})
