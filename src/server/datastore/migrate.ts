import type pg from 'pg'

export async function migrate(client: pg.ClientBase): Promise<void> {
  await client.query('create schema if not exists signet')
}
